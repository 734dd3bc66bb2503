"""What docs/labels.md shows is taken by the reader, the schema and the program; its figures were measured."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import yaml
from jsonschema import Draft202012Validator
from support.runs import draw
from test_readme import blocks, commands

from zsic.cli import run_command
from zsic.core.label_form import LabelForm, LabelSetForm, RejectForm
from zsic.core.labels import LabelSet, load_labels
from zsic.core.spec import LabelsSpec

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
FILES = blocks("yaml", PAGE)
VALIDATOR = Draft202012Validator(json.loads((ROOT / "docs" / "labels.schema.json").read_text(encoding="utf-8")))


def _load(text: str, folder: Path) -> LabelSet:
    (folder / "labels.yaml").write_text(text, encoding="utf-8")
    return load_labels(LabelsSpec(path=str(folder / "labels.yaml")))


def _named(folder: Path) -> list[str]:
    """Write the label files that have a name on top, and give the names."""
    names = []
    for text in FILES:
        if found := re.search(r"^# (\w+\.yaml)$", text, re.MULTILINE):
            (folder / found[1]).write_text(text, encoding="utf-8")
            names.append(found[1])
    return names


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_label_files_are_valid(text: str, tmp_path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(text))
    assert len(_load(text, tmp_path).names) >= 2


@pytest.mark.parametrize("form", [LabelSetForm, LabelForm, RejectForm])
def test_every_field_has_an_example(form: type[LabelSetForm] | type[LabelForm] | type[RejectForm]) -> None:
    for name in form.model_fields:
        assert re.search(rf"\b{name}\b", "\n".join(FILES)), name


def test_they_are_what_is_said_of_them(tmp_path: Path) -> None:
    shapes, languages, families, some, several, shares = (_load(text, tmp_path) for text in FILES)
    assert shapes.prompts()[0][0] == "This is a photo of disc, a type of shape."
    assert shapes.prompts()[2] == ("a heart shape", "my heart")
    assert languages.prompts() == (("This is a photo of cat.",), ("Das ist ein Foto von Wellensittich.",))
    assert (families.rules.back_off, families.rules.threshold_C[3]) == (0.7, 0.8)
    assert families.rules.parents_C[:2] == (("round",), ("round",))
    assert families.prompts()[7] == ("This is a photo of a star.",)
    assert (some.rules.n_answers, some.rules.min_similarity, some.rules.threshold_C[2]) == (3, 0.2, 0.5)
    assert several.rules.threshold_C == (0.9, 0.95, None)
    assert [len(each) for each in several.negatives()] == [1, 2, 1]
    assert shares.prior_C == (0.7, 0.2, 0.1)


MEASURED = {
    "`imagenet80` in place": ("labels: shape", None, "`imagenet80`", 2, 3),
    "a synonym it knows": ("labels: shape", None, "the same with a synonym that it knows", 2, 3),
    "a description in words": ("labels: shape", None, "with a description, no label's words", 2, 3),
    "`context:": ("labels: colour-shape", None, "context `a type of shape`", 2, 3),
    "`back_off: 0.7`": ("144 labels in 12 colours (red: red circle, ...), ", "all", "0.7 ", 1),
    "reject by `score`": ("", "all", "`score`", 3),
    "reject by `similarity`": ("", "all", "`similarity`", 3),
    "reject by background": ("", "all", "background `something else`", 3),
    "background that names": ("", "all", "background names the other shapes", 3),
    "`mode: multi`, rivals": ("", "all", "each label's negatives name the others of its kind, 0.5", 2),
    "`mode: multi`, calibrated": (
        "",
        "all",
        "the default negative, `This is a photo of something else.`, calibrated on 50",
        2,
    ),
    "true shares": ("", "all", "Zipf", 3),
    "shares estimated, Zipf": ("", "all", "Zipf", 4),
    "shares estimated, all equal": ("", "all", "equal shares", 4),
}
"""Row of the page -> heading, condition, row and columns (as drawn, coarse) of the measurement."""


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures_are_those_of_the_measurement() -> None:
    """Those with the method, as drawn and coarse."""
    (link,) = set(re.findall(r"\(\.\./(benchmarks/results/labels_\S+\.md)\)", PAGE))
    measured = (ROOT / link).read_text(encoding="utf-8")
    shown = [_cells(line) for line in PAGE.splitlines() if line.startswith("|")]
    for start, (heading, condition, row, *columns) in MEASURED.items():
        (ours,) = [cells for cells in shown if len(cells) == 6 and cells[0].startswith(start)]
        found = []
        for place, coarse in enumerate(("", ", coarse")):
            if row in ("Zipf", "equal shares"):
                lines = re.findall(rf"^\| all{coarse} \| {row} \|.*", measured, re.MULTILINE)
            else:
                title = heading if condition is None else f"{heading}{condition}{coarse}"
                parts = re.findall(rf"^### (?:\d+ )?{re.escape(title)}$(.*?)(?=^##|\Z)", measured, re.M | re.S)
                lines = [line for part in parts for line in part.splitlines() if line.startswith(f"| {row}")]
            assert len(lines) == 1, (start, lines)
            found.append(_cells(lines[0])[columns[place if condition is None else 0]].split()[0])
        assert [ours[3], ours[5]] == found, start


def arguments_of_zsic() -> list[list[str]]:
    found = [words[1:] for words in commands(PAGE) if words[0] == "zsic"]
    assert len(found) > 8
    return found


def check_all_three_label_sets(folder: Path) -> None:
    table = ds.dataset(sorted((folder / "zsic-demo" / "all").glob("*.parquet"))).to_table()
    assert {"label_colour", "label_shape", "label_tag", "labels_tag"} <= set(table.column_names)
    assert "label" not in table.column_names


@pytest.mark.xdist_group("demo")
def test_commands_and_python_run(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo_folder)
    assert {"shapes.yaml", "families.yaml", "several.yaml"} <= set(_named(demo_folder))
    (demo_folder / "photo.jpg").write_bytes(draw(0))
    for arguments in arguments_of_zsic():
        code = run_command(arguments)
        assert code == 0, (arguments, *capfd.readouterr())
    check_all_three_label_sets(demo_folder)
    for code_block in blocks("python", PAGE):
        exec(code_block, {})
        assert capfd.readouterr().out


@pytest.mark.ray
@pytest.mark.variant
def test_commands_and_python_run_as_processes_with_a_cold_start(tmp_path: Path) -> None:
    _named(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(draw(0))
    program = [str(Path(sys.executable).parent / "zsic")]
    runs = [[*program, *arguments] for arguments in (["demo", "--images", "60"], *arguments_of_zsic())]
    runs += [[sys.executable, "-c", code] for code in blocks("python", PAGE)]
    for command in runs:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    check_all_three_label_sets(tmp_path)
