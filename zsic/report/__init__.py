"""One page about an output, for people: what is in it, how sure it is, how right, and pictures of all that."""

from zsic.report.page import render
from zsic.report.report import Report, make_report

__all__ = ["Report", "make_report", "render"]
