import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from zsic.core.errors import SpecError
from zsic.core.spec import (
    JobSpec,
    LabelsSpec,
    ModelSpec,
    OutputSpec,
    SourceSpec,
    change_labels,
    load_spec,
    make_spec,
    parse_label_sets,
    parse_labels,
)

REQUIRED: dict[str, Any] = {"source": "photos/", "labels": "cat,dog", "output": "out"}
SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in JobSpec.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
FIELDS = [(section, name) for section, model in SECTIONS.items() for name in model.model_fields]


def with_field(section: str, name: str, value: object) -> dict[str, Any]:
    """Give the required fields, all in their long form, with one field set."""
    fields: dict[str, Any] = {
        "source": {"uris": ["photos/"]},
        "labels": {"names": ["cat", "dog"]},
        "output": {"uri": "out"},
    }
    return {**fields, section: {**fields.get(section, {}), name: value}}


def test_every_field_of_a_job_belongs_to_a_section() -> None:
    assert {*SECTIONS, "labels"} == JobSpec.model_fields.keys()  # label sets may be several


class TestDefaults:
    def test_only_three_fields_are_required(self) -> None:
        spec = make_spec(REQUIRED)
        assert spec.source == SourceSpec(uris=("photos/",))
        assert spec.labels == (LabelsSpec(names=("cat", "dog")),)
        assert spec.output == OutputSpec(uri="out")
        assert spec.model == ModelSpec(name="demo")

    def test_of_every_section_are_valid_when_written_out(self) -> None:
        spec = make_spec(REQUIRED)
        assert make_spec(spec.model_dump()) == spec
        assert make_spec(json.loads(spec.model_dump_json())) == spec

    @pytest.mark.parametrize("section", [name for name in SECTIONS if name not in REQUIRED])
    def test_an_empty_section_is_its_defaults(self, section: str) -> None:
        assert make_spec({**REQUIRED, section: {}}) == make_spec(REQUIRED)


class TestShortForms:
    @pytest.mark.parametrize(
        ("section", "short", "long"),
        [
            ("source", "a/", {"uris": ("a/",)}),
            ("source", ["a/", "b.tar"], {"uris": ("a/", "b.tar")}),
            ("source", {"uris": "a/"}, {"uris": ("a/",)}),
            ("labels", "cat, dog,", {"names": ("cat", "dog")}),
            ("labels", ["cat, big", "dog"], {"names": ("cat, big", "dog")}),
            ("labels", "animals.yaml", {"path": "animals.yaml"}),
            (
                "labels",
                {"names": "cat", "templates": "simple"},
                {"names": ("cat",), "templates": ("simple",)},
            ),
            ("model", "openai/clip", {"name": "openai/clip"}),
            ("output", "s3://bucket/out", {"uri": "s3://bucket/out"}),
        ],
    )
    def test_mean_what_the_long_form_says(self, section: str, short: object, long: dict[str, Any]) -> None:
        assert make_spec({**REQUIRED, section: short}) == make_spec({**REQUIRED, section: long})

    @pytest.mark.parametrize(
        ("text", "fields"),
        [
            ("cat", {"names": ("cat",)}),
            ("cat,dog", {"names": ("cat", "dog")}),
            (" cat , hot dog ,", {"names": ("cat", "hot dog")}),
            ("a.txt", {"path": "a.txt"}),
            ("dir/A.CSV", {"path": "dir/A.CSV"}),
            ("a.json", {"path": "a.json"}),
            ("a.yml", {"path": "a.yml"}),
            ("", {"names": ()}),
        ],
    )
    def test_of_labels_tell_files_from_names(self, text: str, fields: dict[str, object]) -> None:
        assert parse_labels(text) == fields

    @pytest.mark.parametrize("text", ["labels.tsv", "h.safetensor", "heads/h1", "of/labels"])
    def test_what_is_hardly_meant_as_a_name_is_none(self, text: str) -> None:
        with pytest.raises(SpecError, match="is no label file or head by its ending"):
            parse_labels(text)
        assert parse_labels(f"{text},cat") == {"names": (text, "cat")}

    def test_a_group_with_nothing_below_it_is_the_default(self) -> None:
        text = "source: in\nlabels: cat,dog\noutput: out\nexecution:\nmodel:\n"
        assert make_spec(yaml.safe_load(text)) == make_spec({"source": "in", "labels": "cat,dog", "output": "out"})

    @pytest.mark.parametrize(("given", "kept"), [("out/", "out"), ("s3://b/out//", "s3://b/out"), ("/", "/")])
    def test_an_output_ends_without_a_slash(self, given: str, kept: str) -> None:
        assert make_spec({**REQUIRED, "output": given}).output.uri == kept


class TestErrors:
    def test_a_table_elsewhere_is_explained(self) -> None:
        with pytest.raises(
            SpecError, match=r"output\.publish: it is `delta`: the table is the folder .* got 's3://b/t'"
        ):
            make_spec({**REQUIRED, "output": {"uri": "out", "publish": "s3://b/t"}})
        with pytest.raises(SpecError) as caught:
            make_spec({**REQUIRED, "output": {"uri": "out", "publish": "s3://KEY:SECRET@b/t"}})
        assert "SECRET" not in str(caught.value)

    @pytest.mark.parametrize(("section", "name"), FIELDS)
    def test_name_the_field_whichever_it_is(self, section: str, name: str) -> None:
        with pytest.raises(SpecError) as caught:
            make_spec(with_field(section, name, object()))
        assert str(caught.value).startswith(f"{section}.{name}: ")

    @pytest.mark.parametrize(
        ("section", "name", "value"),
        [
            ("source", "uris", []),
            ("source", "format", "zip"),
            ("output", "uri", ""),
            ("output", "rows_per_part", 0),
            ("model", "dtype", "int8"),
            ("decode", "mode", "quick"),
            ("decode", "max_bytes", 0),
            ("decode", "max_pixels", -1),
            ("scoring", "top_k", 0),
            ("scoring", "top_k", 1.5),
            ("store", "timeout_s", 0),
            ("store", "attempts", 0),
            ("execution", "num_cpus", 0),
            ("execution", "num_gpus", -1),
            ("execution", "num_gpus", float("nan")),
            ("execution", "decode_cpus", 0),
            ("execution", "encoders", 0),
            ("execution", "encoder_threads", 0),
            ("execution", "batch_size", 0),
            ("execution", "decode_tasks", 0),
            ("execution", "block_rows", 0),
            ("execution", "no_progress_timeout_s", 0),
        ],
    )
    def test_say_the_value_that_is_out_of_range(self, section: str, name: str, value: object) -> None:
        with pytest.raises(SpecError) as caught:
            make_spec(with_field(section, name, value))
        assert str(caught.value).startswith(f"{section}.{name}: ")
        assert str(caught.value).endswith(f"; got {value!r}")

    @pytest.mark.parametrize("section", SECTIONS)
    def test_name_an_unknown_field(self, section: str) -> None:
        with pytest.raises(SpecError, match=rf"^{section}\.uril is not a field of the spec"):
            make_spec(with_field(section, "uril", 1))

    def test_name_an_unknown_section(self) -> None:
        with pytest.raises(SpecError, match=r"^modle is not a field of the spec"):
            make_spec({**REQUIRED, "modle": "demo"})

    def test_come_all_at_once(self) -> None:
        with pytest.raises(SpecError) as caught:
            make_spec({"labels": "cat", "scoring": {"top_k": 0}})
        assert [line.split()[0] for line in str(caught.value).splitlines()] == [
            "source",
            "output",
            "scoring.top_k:",
        ]

    def test_name_the_item_of_a_list(self) -> None:
        with pytest.raises(SpecError, match=r"^labels\.names\.1: .*False"):
            make_spec({**REQUIRED, "labels": ["cat", False]})


@pytest.mark.parametrize("section", SECTIONS)
def test_a_spec_is_frozen(section: str) -> None:
    spec = make_spec(REQUIRED)
    part = getattr(spec, section)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(spec, section, part)
    for name in SECTIONS[section].model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, getattr(part, name))


def test_a_spec_can_be_hashed_so_nothing_in_it_can_change() -> None:
    assert hash(make_spec(REQUIRED)) == hash(make_spec(REQUIRED))


class TestLoadSpec:
    @pytest.mark.parametrize("dump", [yaml.safe_dump, json.dumps])
    def test_reads_yaml_and_json(self, tmp_path: Path, dump: Any) -> None:
        path = tmp_path / "job.yaml"
        path.write_text(dump({**REQUIRED, "scoring": {"top_k": 2}}), encoding="utf-8")
        assert load_spec(path) == load_spec(str(path)) == make_spec({**REQUIRED, "scoring": {"top_k": 2}})

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"source: [", "not a YAML file: "),
            (b"source: \xff", "not a YAML file: "),
            (b"- source\n", "a spec is a mapping with source, labels and output"),
            (b"", "a spec is a mapping with source, labels and output"),
            (b"labels: cat\noutput: out\n", "source is missing"),
            (b"source: a\nlabels: [cat, no]\noutput: out\n", "labels.names.1: "),
        ],
    )
    def test_faults_name_the_file(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "job.yaml"
        path.write_bytes(content)
        with pytest.raises(SpecError) as caught:
            load_spec(path)
        assert str(caught.value).startswith(f"{path}: {message}")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"none\.yaml: No such file"):
            load_spec(tmp_path / "none.yaml")


class TestLabelSets:
    def test_a_list_of_mappings_is_several_sets(self) -> None:
        spec = make_spec({**REQUIRED, "labels": [{"name": "colour", "names": ["red", "blue"]}, {"path": "a.yaml"}]})
        assert spec.labels == (LabelsSpec(name="colour", names=("red", "blue")), LabelsSpec(path="a.yaml"))

    def test_a_list_of_texts_is_one(self) -> None:
        assert make_spec({**REQUIRED, "labels": ["red", "blue"]}).labels == (LabelsSpec(names=("red", "blue")),)

    def test_several_flags_may_name_their_sets(self) -> None:
        with pytest.raises(SpecError, match="labels: colour= names a label set, and one that is alone needs no name"):
            parse_label_sets(["colour=red,blue"])
        assert parse_label_sets(["colour=red, blue", "shapes.yaml", "x=head.safetensors"]) == (
            {"name": "colour", "names": ("red", "blue")},
            {"path": "shapes.yaml"},
            {"name": "x", "head": "head.safetensors"},
        )

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([{"name": "a b", "names": ["x"]}, {"path": "y"}], "labels.0.name: string should match pattern"),
            ([{"name": "a", "label": ["x"]}], "labels.0.label is not a field of the spec"),
            ({"name": "a b"}, "labels.name: string should match pattern"),
            ([], "labels"),
        ],
    )
    def test_faults_name_the_set(self, labels: object, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            make_spec({**REQUIRED, "labels": labels})
        assert str(caught.value).startswith(message)

    def test_survive_being_written_down(self) -> None:
        spec = make_spec({**REQUIRED, "labels": [{"name": "colour", "names": ["red"]}, {"name": "b", "path": "a.txt"}]})
        assert make_spec(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json")))) == spec
        moved = change_labels(spec, [{}, {"path": "labels1.txt"}])
        assert [each.path for each in moved.labels] == [None, "labels1.txt"]
        assert moved.labels[0] == spec.labels[0]
