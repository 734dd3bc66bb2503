"""Labelled images out of an output, to train another model with; no Ray, no torch."""

from zsic.export.exporting import Exported, ExportSpec, export
from zsic.export.selection import Selection

__all__ = ["ExportSpec", "Exported", "Selection", "export"]
