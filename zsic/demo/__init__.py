"""The demo: pictures drawn by rules, and a small CLIP that was trained on such pictures.

Importing this package imports neither torch nor transformers.
"""

from pathlib import Path
from typing import Final

MODEL_PATH: Final = Path(__file__).parent / "model"
"""The bundled model: a folder for `from_pretrained`, needing no network."""
