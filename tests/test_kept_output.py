"""An output that an earlier release wrote is verified, resumed, extended and read by this one.

`golden/output-7eae3bb/` holds the objects of a bucket: a published increment, and one that was stopped before its
snapshot, without one of its parts.  Uris and ETags are the same wherever the bucket is filled again.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.golden import bucket_named, check_links, files_of_bucket, find_differences, read_rows

from zsic import run
from zsic.cli import run_command
from zsic.core.spec import make_spec

GOLDEN = Path(__file__).parent / "golden"
KEPT = GOLDEN / "output-7eae3bb"
BUCKET = "zsic-kept"
LABELS = "red circle,green square,blue triangle,yellow star,black heart,white ring"
INDEX_BITS = 24

Row = dict[str, Any]
Zsic = Callable[..., tuple[int, str]]


@pytest.fixture
def kept(s3_server: str) -> Iterator[Any]:
    """A client of a server that holds the kept output and its source."""
    client = boto3.client("s3", endpoint_url=s3_server)
    with bucket_named(client, BUCKET):
        _upload(client, KEPT / "bucket")
        yield client


@pytest.fixture
def zsic(s3_server: str, capfd: pytest.CaptureFixture[str]) -> Zsic:
    """Run a command in this process: its exit code, and what it printed to stdout."""

    def command(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        code = run_command([*map(str, arguments), "--s3-endpoint-url", s3_server])
        return code, capfd.readouterr().out

    return command


def _upload(client: Any, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, str(path.relative_to(folder)))


def _read(client: Any) -> list[Row]:
    """Read the table; each row must be there once."""
    rows = read_rows(files_of_bucket(client, BUCKET, "out/"))
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids) == len({(row["uri"], row["key"]) for row in rows})
    return rows


def _rows_of(folder: Path) -> list[Row]:
    return read_rows({path.name: path.read_bytes() for path in folder.glob("*.parquet")})


def test_is_resumed_and_extended_and_keeps_its_rows(
    execution: dict[str, Any], s3_server: str, kept: Any, zsic: Zsic, tmp_path: Path
) -> None:
    spec = make_spec(
        {
            "source": {"uris": f"s3://{BUCKET}/in/", "keep_columns": ["json"]},
            "labels": LABELS,
            "model": "demo",
            "output": {"uri": f"s3://{BUCKET}/out", "embeddings": True},
            "update": {"prune": True},
            "store": {"s3_endpoint_url": s3_server},
            "execution": execution,
        }
    )
    published = _rows_of(KEPT / "bucket" / "out")
    staged = _rows_of(KEPT / "bucket" / "out" / "_zsic" / "staged")
    missing = _rows_of(KEPT / "missing" / "out" / "_zsic" / "staged")
    superseded = {f"s3://{BUCKET}/in/71.jpg", f"s3://{BUCKET}/in/72.jpg"}  # one changed, the other was deleted
    assert (len(published), len(staged), len(missing)) == (10, 3, 2)

    summary = run(spec)
    assert (summary.state, summary.resumed) == ("complete", True)
    assert (summary.n_rows, summary.n_rows_before, summary.n_superseded) == (5, 3, 2)
    rows = _read(kept)
    carried = [row for row in published if row["uri"] not in superseded]
    assert rows == sorted([*carried, *staged, *rows[-2:]], key=lambda row: row["id"])
    assert list(find_differences(missing, rows[-2:])) == []
    check_links(files_of_bucket(kept, BUCKET, "out/"))
    assert zsic("verify", f"s3://{BUCKET}/out")[0] == 0

    kept.upload_file(str(GOLDEN / "source" / "later" / "0-new.jpg"), BUCKET, "in/0-new.jpg")
    summary = run(spec)
    assert (summary.state, summary.resumed, summary.n_rows, summary.n_rows_in_all) == ("complete", False, 1, 14)
    *old, new = _read(kept)
    assert old == rows
    assert (new["id"], new["uri"], new["outcome"]) == (12 << INDEX_BITS, f"s3://{BUCKET}/in/0-new.jpg", "ok")
    check_links(files_of_bucket(kept, BUCKET, "out/"))
    assert zsic("verify", f"s3://{BUCKET}/out")[0] == 0
    assert run(spec).state == "unchanged"

    truth = tmp_path / "truth.csv"
    shown = {row["uri"]: row["label"] for row in rows if row["key"] is None and row["outcome"] == "ok"}
    truth.write_text("uri,label\n" + "".join(f"{uri},{label}\n" for uri, label in shown.items()))
    code, text = zsic("evaluate", f"s3://{BUCKET}/out", "--truth", truth, "--json")
    assert code == 0
    result = json.loads(text)
    assert (result["n_rows"], result["n_matched"], result["top1"]["value"]) == (14, len(shown), 1)
    code, text = zsic("report", f"s3://{BUCKET}/out", "--text")
    assert code == 0
    outcomes = {line.split()[0]: line.split()[1] for line in text.split("\n\n")[0].splitlines()[1:]}
    assert outcomes == {"ok": "12", "corrupt": "1", "not_an_image": "1"}


def test_exit_codes(kept: Any, zsic: Zsic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each exit code, by a command that starts no Ray."""
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    source, out = f"s3://{BUCKET}/in/", f"s3://{BUCKET}/out"
    job = ("classify", source, "--keep-column", "json", "--embeddings", "--prune", "--labels", LABELS, "--output")

    def code_of(*arguments: object) -> int:
        return zsic(*arguments)[0]

    assert code_of("verify", out) == 1  # a run is open
    assert code_of(*job, out, "--top-k", "7") == 2  # there are 6 labels
    assert code_of("classify", source, "--labels", LABELS) == 2  # without --output
    assert code_of(*job, out, "--decode-mode", "pil") == 4
    assert code_of(*job, "gs://bucket/out") == 5
    # With the part that was taken out all rows are there, one of them of a corrupt image.
    _upload(kept, KEPT / "missing")
    assert code_of(*job, out, "--max-failures", "0") == 3
    assert code_of(*job, out) == 0  # publishes
    assert [row["id"] for row in _read(kept)][-1] == 11 << INDEX_BITS
    assert code_of("verify", out) == 0
    assert code_of(*job, out) == 0  # nothing to do
    (name, *_) = (name for name in files_of_bucket(kept, BUCKET, "out/") if name.startswith("part-"))
    kept.delete_object(Bucket=BUCKET, Key=f"out/{name}")
    assert code_of("verify", out) == 1
