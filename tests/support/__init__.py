"""What tests share: servers, sources, checkpoints, published outputs, and programs that tests start."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
"""The folder to start programs of this package in: `python -m support.racer`."""
