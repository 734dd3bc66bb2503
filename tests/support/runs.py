"""Sources to run jobs over, and their outputs as a user reads them."""

import io
import json
import tarfile
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

LABELS = ["red circle", "green square", "blue triangle", "yellow star", "black heart", "white ring"]


def draw(number: int) -> bytes:
    """A picture of its own: size, colours and place follow from the number."""
    rng = Random(number)
    size = (rng.randint(70, 160), rng.randint(70, 160))
    image = Image.new("RGB", size, tuple(rng.randint(0, 255) for _ in range(3)))
    colour = tuple(rng.randint(0, 255) for _ in range(3))
    ImageDraw.Draw(image).ellipse([10, 10, 60, 60], fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, ("JPEG", "PNG")[number % 2])
    return buffer.getvalue()


def write_shard(path: Path, numbers: range) -> Path:
    """A tar shard of pictures."""
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            data = draw(number)
            entry = tarfile.TarInfo(f"{number:05d}.{('jpg', 'png')[number % 2]}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def read_table(folder: Path, *columns: str) -> pa.Table:
    """The output as a user reads it: every Parquet file in the folder; sorted by id."""
    return pq.read_table(sorted(folder.glob("*.parquet")), columns=list(columns) or None).sort_by("id")


def assert_same_rows(left: pa.Table, right: pa.Table) -> None:
    """Two tables say the same: all columns equal, numbers up to the rounding of another batch of images."""
    assert left.column_names == right.column_names
    for name in left.column_names:
        if name not in ("label", "score", "predictions"):
            assert left[name].equals(right[name]), name
    for ours, theirs in zip(left["predictions"].to_pylist(), right["predictions"].to_pylist(), strict=True):
        assert (ours is None) == (theirs is None)
        for our, their in zip(ours or (), theirs or (), strict=True):
            assert our["score"] == pytest.approx(their["score"], abs=1e-5)
            assert our["similarity"] == pytest.approx(their["similarity"], abs=1e-5)


def leftovers(folder: Path) -> list[str]:
    """Files of an output that are neither parts nor known to the protocol."""
    known = ("plan", "snapshot", "runs", "lease")
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
        and path.parent != folder
        and path.parent.name not in known
        and path.name not in ("job.json", "store.json")
    ]


def cut_last_snapshot(folder: Path) -> None:
    """Take the commit back, as if the driver had died just before it."""
    last = max((folder / "_zsic" / "snapshot").glob("*.json"))
    assert json.loads(last.read_text())["parts"]
    last.unlink()
