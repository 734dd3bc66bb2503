"""Somebody who reads the table all the while, and must never see anything but whole increments."""

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq


def published_parts(out: Path) -> dict[str, int]:
    """Names and rows of the parts that are published now.