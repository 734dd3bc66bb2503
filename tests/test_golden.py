"""The real job over a fixed source gives the outputs, plans, snapshots and help texts that are kept in `golden/`.

`make golden` renews the files: on purpose, and the difference is read before it is committed.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import typer
from support.golden import Golden, bucket_named, files_of_bucket, files_of_folder, find_differences
from typer.testing import CliRunner

from zsic import JobSpec, run
from zsic.cli import app
from zsic.core.spec import make_spec

GOLDEN = Path(__file__).parent / "golden"
LABELS = "red circle,green square,blue triangle,yellow star,black heart,white ring"
LISTED = 1_750_000_000
"""The time of each file on disk, in seconds."""
BUCKET = "zsic-golden"

Execution = dict[str, Any]


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """The files to compare with, or to renew."""
    return Golden(GOLDEN / "expected", bool(request.config.getoption("--renew-golden")))


@pytest.fixture
def bucket(s3_server: str) -> Iterator[Any]:
    """A client of a server with an empty bucket, whose name is the same in each run."""
    client = boto3.client("s3", endpoint_url=s3_server)
    with bucket_named(client, BUCKET):
        yield client


@pytest.mark.parametrize("execution", ["local", pytest.param("ray", marks=pytest.mark.ray)], indirect=True)
def test_several_label_sets_with_embeddings_on_disk(execution: Execution, tmp_path: Path, golden: Golden) -> None:
    source = tmp_path / "in"
    shutil.copytree(GOLDEN / "source", source)
    for path in source.rglob("*"):
        os.utime(path, (LISTED, LISTED))
    spec = make_spec(
        {
            "source": {
                "uris": [f"{source}/shards/*.tar", f"{source}/table.parquet", f"{source}/photos"],
                "keep_columns": ["json"],
            },
            "labels": [
                {"path": str(GOLDEN / "shape.yaml")},
                {"path": str(GOLDEN / "tag.yaml")},
                {"name": "thing", "names": LABELS.split(",")},
            ],
            "model": "demo",
            "output": {"uri": str(tmp_path / "out"), "embeddings": True, "rows_per_part": 1_000},
            "scoring": {"top_k": 4},
            "execution": execution,
        }
    )
    run(spec)
    golden.check_output("several-sets", files_of_folder(tmp_path / "out"), str(tmp_path))


def test_one_label_set_and_an_increment_on_s3(
    execution: Execution, s3_server: str, bucket: Any, golden: Golden
) -> None:
    for path in sorted((GOLDEN / "source" / "photos").iterdir()):
        bucket.upload_file(str(path), BUCKET, f"in/photos/{path.name}")
    bucket.upload_file(str(GOLDEN / "source" / "shards" / "a.tar"), BUCKET, "in/shards/a.tar")

    def spec(**update: bool) -> JobSpec:
        return make_spec(
            {
                "source": f"s3://{BUCKET}/in/",
                "labels": LABELS,
                "model": "demo",
                "decode": {"mode": "pil"},
                "output": {"uri": f"s3://{BUCKET}/out", "rows_per_part": 1_000},
                "store": {"s3_endpoint_url": s3_server},
                "update": update,
                "execution": execution,
            }
        )

    run(spec())
    golden.check_output("one-set/1", files_of_bucket(bucket, BUCKET, "out/"))

    bucket.upload_file(str(GOLDEN / "source" / "later" / "0-new.jpg"), BUCKET, "in/photos/0-new.jpg")
    bucket.upload_file(str(GOLDEN / "source" / "later" / "31.jpg"), BUCKET, "in/photos/31.jpg")
    bucket.delete_object(Bucket=BUCKET, Key="in/photos/32.jpg")
    run(spec(prune=True))
    golden.check_output("one-set/2", files_of_bucket(bucket, BUCKET, "out/"))
    assert run(spec(prune=True)).state == "unchanged"


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"score": 0.5}, {"score": 0.5002}),
        ({"score": 0.5}, {"score": None}),
        ({"score": 1.0}, {"score": 1}),
        ({"id": 1}, {"id": 2}),
        ({"key": None}, {"key": ""}),
        ({"id": 1, "uri": "a"}, {"uri": "a", "id": 1}),
        ({"id": 1, "uri": "a"}, {"id": 1}),
        ([{"label": "a"}, {"label": "b"}], [{"label": "b"}, {"label": "a"}]),
        ([1, 2], [1]),
        ([1], [1, 2]),
        ({"embedding": "0038"}, {"embedding": "0638"}),  # 0.5 and six steps of float16 more
        ({"embedding": "0038"}, {"embedding": "00380038"}),
        ({"embedding": "0038"}, {"embedding": None}),
    ],
)
def test_the_comparison_finds_each_difference(expected: Any, actual: Any) -> None:
    assert list(find_differences(expected, expected)) == []
    assert list(find_differences(expected, actual))


def test_the_comparison_allows_for_rounding() -> None:
    row = {"score": 0.5, "embedding": "0038"}
    assert list(find_differences(row, {"score": 0.50005, "embedding": "0138"})) == []


def test_a_file_is_renewed_once_and_only_if_it_differs(tmp_path: Path) -> None:
    Golden(tmp_path, renew=True).check("a.json", [0.5])
    golden = Golden(tmp_path, renew=True)
    golden.check("a.json", [0.50001])
    assert (tmp_path / "a.json").read_text() == "[\n 0.5\n]\n"
    golden = Golden(tmp_path, renew=True)
    golden.check("a.json", [0.6])
    with pytest.raises(AssertionError, match=r"\[0\]: 0\.6, now 0\.7"):
        golden.check("a.json", [0.7])
    with pytest.raises(AssertionError, match="make golden"):
        Golden(tmp_path, renew=False).check("a.json", [0.7])


def test_help_of_every_command(golden: Golden) -> None:
    texts = []
    for words in _commands(typer.main.get_command(app)):
        # Width and colours must not follow from the terminal, or from a CI that is known to typer.
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})
        assert shown.exit_code == 0
        text = re.sub(r"\x1b\[[0-9;]*m", "", shown.output)
        texts.append("\n".join([f"$ zsic {' '.join([*words, '--help'])}", *map(str.rstrip, text.splitlines())]))
    golden.check_text("help.txt", "\n\n".join(texts) + "\n")


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Find all commands, those of groups too."""
    yield words
    for name, each in getattr(command, "commands", {}).items():
        yield from _commands(each, (*words, name))
