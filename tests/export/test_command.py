"""`zsic export` and `zsic search` as typed: what they print, and how they end; and the recipes of docs/export.md."""

import csv
import json
import re
from pathlib import Path

import duckdb
import pytest
from support.published import Reply, publish
from support.runs import LABELS, draw

from zsic.cli import run_command
from zsic.core.spec import ModelSpec
from zsic.models.checkpoint import resolve

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four images, classified with embeddings into `labelled`; one has no label."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(draw(number))
    checkpoint = resolve(ModelSpec())
    dim = int(checkpoint.read_json("config.json")["projection_dim"])

    def answer(row: object) -> Reply:
        index = row.id >> 24  # type: ignore[attr-defined]
        return Reply(LABELS[index] if index else None, 0.5, 0.1, [float(at == index) for at in range(dim)])

    publish("labelled", "in", answer, dim=dim, digest=checkpoint.digest, rows_per_part=2)
    return tmp_path


def test_export_tells_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "labelled", "--output", "train", "--format", "imagefolder", "--labels-only", LABELS[1]]
    assert run_command(command) == 0
    told = capsys.readouterr().out
    assert f"1 images of 1 labels in {folder}/train/<label>/" in told
    assert LABELS[1] in told
    assert run_command(command) == 0
    assert "1 of them were there before" in capsys.readouterr().out


def test_what_is_gone_ends_with_3_and_its_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in" / "2.jpg").unlink()
    assert run_command(["export", "labelled", "--output", "train", "--format", "webdataset"]) == 3
    told = capsys.readouterr()
    assert "2 images of 3 labels in 1 shards" in told.out
    assert "1 images were not to be had (missing 1); the same command tries them again" in told.err
    assert f"{folder}/in/2.jpg: missing" in told.err


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["export", "nowhere", "--output", "x", "--format", "webdataset"], 2, "nothing is published there yet"),
        (["export", "labelled", "--output", "x", "--format", "csv"], 2, "use imagefolder or webdataset"),
        (["export", "labelled", "--output", "gs://b/x", "--format", "webdataset"], 5, "the scheme 'gs'"),
        (
            ["export", "s3://key:secret@b/x", "--output", "x", "--format", "webdataset"],
            2,
            "OUT: a URL holds credentials",
        ),
        (["search", "labelled"], 2, "nothing to search for"),
        (["search", "labelled", "x", "--gallery", "no/such/folder.html"], 2, "--gallery: no/such/folder.html"),
        (["search", "labelled", "x", "--model", "/no/model"], 2, "there is no folder /no/model"),
    ],
)
def test_errors_say_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], code: int, message: str
) -> None:
    assert run_command(command) == code
    told = capsys.readouterr().err
    assert message in told
    assert "secret" not in told


def test_another_selection_ends_with_4(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "labelled", "--output", "train", "--format", "imagefolder"]
    assert run_command(command) == 0
    assert run_command([*command, "--min-score", "0.2"]) == 4
    assert "min_score: this run 0.2, that one None" in capsys.readouterr().err


def test_search_prints_a_table_json_or_a_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["search", "labelled", "a circle", "--top", "3"]) == 0
    told = capsys.readouterr().out
    assert told.split()[:5] == ["rank", "similarity", "uri", "key", "label"]
    assert len(told.splitlines()) == 4
    assert run_command(["search", "labelled", "a circle", "a ring", "--json", "--gallery", "page.html"]) == 0
    founds = json.loads(capsys.readouterr().out)
    assert [found["query"] for found in founds] == ["a circle", "a ring"]
    assert [hit["rank"] for hit in founds[0]["hits"]] == [1, 2, 3, 4]
    assert (folder / "page.html").read_text().count("<img ") == 8


def test_the_recipes_give_csv_and_json_lines(folder: Path) -> None:
    (recipe,) = re.findall(r"^```sql\n(.*?)^```", (DOCS / "export.md").read_text(), re.MULTILINE | re.DOTALL)
    for line in recipe.splitlines():
        duckdb.sql(line)
    with open("labelled.csv") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["label"] for row in rows) == sorted(LABELS[1:4])
    assert rows[0].keys() == {"uri", "key", "label", "score"}
    lines = [json.loads(line) for line in Path("labelled.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert "embedding" not in lines[0]
    assert {len(line["predictions"]) for line in lines} == {2}
    assert all(set(entry) == {"label", "score", "similarity"} for line in lines for entry in line["predictions"])


def test_the_recipe_for_fiftyone_is_python() -> None:
    (recipe,) = re.findall(r"^```python\n(.*?)^```", (DOCS / "export.md").read_text(), re.MULTILINE | re.DOTALL)
    compile(recipe, "export.md", "exec")
