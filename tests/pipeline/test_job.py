"""What a spec becomes before Ray is asked for: label sets, heads, the fingerprint."""

from pathlib import Path
from typing import Any

import pytest

from zsic.core.errors import ModelError, SpecError
from zsic.core.fingerprint import fingerprint
from zsic.core.spec import make_spec
from zsic.pipeline.heads import adjust_shares, compile_labels
from zsic.pipeline.job import Job, prepare


def job_of(tmp_path: Path, labels: Any, **fields: Any) -> Job:
    return prepare(make_spec({"source": str(tmp_path), "labels": labels, "output": str(tmp_path / "out"), **fields}))


COLOUR = {"name": "colour", "names": ["red", "blue"]}


def test_several_sets_keep_their_order_and_their_k(tmp_path: Path) -> None:
    job = job_of(tmp_path, [COLOUR, {"name": "n", "names": [str(n) for n in range(9)]}])
    assert job.top_ks == (2, 5)
    assert [columns.name("label") for columns in job.find_heads().columns] == ["label_colour", "label_n"]
    with pytest.raises(SpecError, match=r"scoring\.top_k is 3 but labels has 2"):
        job_of(tmp_path, [COLOUR, {"name": "n", "names": ["a", "b", "c"]}], scoring={"top_k": 3})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([COLOUR, {"names": ["a"]}], r"^labels\.1\.name is missing; of several label sets each needs one"),
        ([COLOUR, {"name": "colour", "names": ["a"]}], r"^labels\.1\.name is 'colour', as labels\.0\.name is"),
        ([COLOUR, {"name": "b", "names": ["a", "a"]}], r"^labels\.1\.names\.1: label 'a' is there already"),
        ([COLOUR, {"name": "b", "names": ["a"], "path": "x.txt"}], r"^labels\.1\.path and labels\.1\.names are both"),
        ({"names": ["a"], "head": "x.safetensors"}, r"^labels\.names and labels\.head are both given"),
        (
            {"head": "x.safetensors", "templates": "simple"},
            r"^labels\.templates: x\.safetensors has its prompts already",
        ),
    ],
)
def test_sets_that_cannot_be_are_named(tmp_path: Path, labels: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        job_of(tmp_path, labels)


def test_a_head_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("no head")
    with pytest.raises(ModelError, match="is not a head that zsic has saved"):
        job_of(tmp_path, {"head": str(tmp_path / "x.safetensors")})


def test_what_a_file_calls_its_set_counts_unless_the_spec_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: shape\nlabels: [circle]\n")
    sets = job_of(tmp_path, [COLOUR, {"path": str(tmp_path / "a.yaml")}]).sets
    assert [each.name for each in sets] == ["colour", "shape"]
    sets = job_of(tmp_path, [COLOUR, {"name": "form", "path": str(tmp_path / "a.yaml")}]).sets
    assert [each.name for each in sets] == ["colour", "form"]


def test_columns_of_any_set_are_reserved(tmp_path: Path) -> None:
    sets = [COLOUR, {"name": "b", "names": ["a"]}]
    source = {"uris": str(tmp_path), "keep_columns": ["score_b"]}
    with pytest.raises(SpecError, match=r"source\.keep_columns: 'score_b' is a column of the output"):
        prepare(make_spec({"source": source, "labels": sets, "output": str(tmp_path / "out")}))


@pytest.mark.parametrize("name", ["path", "labels", "source_total"])
def test_what_other_outputs_have_is_reserved_too(name: str, tmp_path: Path) -> None:
    source = {"uris": str(tmp_path), "keep_columns": [name]}
    with pytest.raises(SpecError, match=f"'{name}' is a column of the output"):
        prepare(make_spec({"source": source, "labels": "a,b", "output": str(tmp_path / "out")}))


def test_a_column_is_kept_once(tmp_path: Path) -> None:
    source = {"uris": str(tmp_path), "keep_columns": ["id_of_theirs", "id_of_theirs"]}
    with pytest.raises(SpecError, match="'id_of_theirs' is there twice"):
        prepare(make_spec({"source": source, "labels": "a,b", "output": str(tmp_path / "out")}))


def test_the_fingerprint_knows_labels_and_rules_but_not_how_they_came(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("labels: [red, blue]\n")
    (tmp_path / "b.yaml").write_text("labels: [red, blue]\nreject: {min_score: 0.5}\n")
    plain = compile_labels("red,blue").head
    plain.save(tmp_path / "plain.safetensors")
    adjust_shares(plain, shares={"red": 0.7, "blue": 0.3}).head.save(tmp_path / "shares.safetensors")

    def of(labels: Any) -> str:
        return fingerprint(job_of(tmp_path, labels).fields)

    same = {of("red,blue"), of(str(tmp_path / "a.yaml")), of({"name": "colour", "names": ["red", "blue"]})}
    assert len(same) == 1
    others = [
        str(tmp_path / "b.yaml"),
        {"head": str(tmp_path / "shares.safetensors")},
        [COLOUR, {"name": "again", "names": ["red", "blue"]}],
        [{**COLOUR, "name": "color"}, {"name": "again", "names": ["red", "blue"]}],
    ]
    assert len(same | {of(labels) for labels in others}) == 5
    assert of({"head": str(tmp_path / "plain.safetensors")}) == same.pop(), "a head is what it was compiled of"
