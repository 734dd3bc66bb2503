"""A machine that sees other disks than the driver does is told apart, whatever else may be missing."""

from pathlib import Path

import pytest

from zsic.core.errors import SourceError, SpecError
from zsic.core.spec import StoreSpec
from zsic.pipeline.sight import N_WITNESSES, Sight, look
from zsic.storage.output import JOB
from zsic.storage.sample import Source
from zsic.storage.store import open_store


def source(uri: str) -> Source:
    return Source(uri, "image", 1, None, 0, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out" / JOB).parent.mkdir(parents=True)
    (tmp_path / "out" / JOB).write_text("{}")
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    return tmp_path


def look_around(folder: Path) -> Sight:
    gone = source(f"{folder}/gone.jpg")
    sources = [gone, *(source(f"{folder}/{number}.jpg") for number in range(20)), source("s3://lake/a.jpg")]
    return look(open_store(f"{folder}/out", StoreSpec()), sources)


def test_the_same_disks_are_fine(folder: Path) -> None:
    sight = look_around(folder)
    assert sight.witnesses == tuple(f"{folder}/{number}.jpg" for number in range(N_WITNESSES))
    sight.check()
    # Files may be deleted while the job runs; then their rows say so.
    for number in range(N_WITNESSES - 1):
        (folder / f"{number}.jpg").unlink()
    sight.check()


def test_images_that_are_elsewhere(folder: Path) -> None:
    sight = look_around(folder)
    for number in range(N_WITNESSES):
        (folder / f"{number}.jpg").unlink()
    with pytest.raises(SourceError, match=r"^source\.uris: .*/0\.jpg was a file where .* does not see it; put"):
        sight.check()


def test_an_output_that_is_elsewhere(folder: Path) -> None:
    sight = look_around(folder)
    (folder / "out" / JOB).unlink()
    with pytest.raises(SpecError, match=r"^output\.uri: .*/out is not the same folder on .*; use a folder that all"):
        sight.check()


def test_object_stores_are_the_same_everywhere() -> None:
    sight = look(open_store("s3://lake/out", StoreSpec(s3_endpoint_url="http://127.0.0.1:1")), [source("s3://lake/a")])
    assert sight.witnesses == ()
    sight.check()
