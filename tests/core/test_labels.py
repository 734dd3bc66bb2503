import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from zsic.core.document import read_yaml
from zsic.core.errors import SpecError
from zsic.core.label_form import json_schema
from zsic.core.labels import Label, LabelSet, load_labels
from zsic.core.rules import Rules
from zsic.core.spec import LabelsSpec
from zsic.core.templates import TEMPLATE_SETS

Load = Callable[..., LabelSet]


def _nested(depth: int) -> object:
    return [_nested(depth - 1)] if depth else "x"


NAMES = st.lists(
    st.text(st.characters(categories=("L", "N", "P", "S", "M", "Zs"))).filter(str.strip),
    min_size=1,
    max_size=6,
    unique_by=lambda name: normalize("NFC", name).strip(),
)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write a label file and load it, by a short path, since messages show the path."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(name: str, content: str | bytes, **spec: object) -> LabelSet:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_labels(LabelsSpec.model_validate({"path": name, **spec}))

    return write_and_load


def plain(*names: str) -> tuple[Label, ...]:
    return tuple(Label(name) for name in names)


class TestNames:
    def test_keep_their_order_and_get_the_simple_template(self) -> None:
        label_set = load_labels(LabelsSpec(names=("dog", "cat")))
        assert label_set == LabelSet(plain("dog", "cat"), TEMPLATE_SETS["simple"])
        assert label_set.names == ("dog", "cat")
        assert label_set.prompts() == (("This is a photo of dog.",), ("This is a photo of cat.",))

    def test_are_stripped_and_composed(self) -> None:
        assert load_labels(LabelsSpec(names=(" cafe\u0301 ",))).names == ("caf\u00e9",)

    def test_take_the_templates_of_the_spec(self) -> None:
        spec = LabelsSpec(names=("cat",), templates=("none", "a {label}"))
        assert load_labels(spec).prompts() == (("cat", "a cat"),)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ((), "labels.names holds no label; "),
            (("cat", " "), "labels.names.1: the label is empty; "),
            (("cat", "dog", "cat "), "labels.names.2: label 'cat' is there already (labels.names.0); "),
            (("caf\u00e9", "cafe\u0301"), "labels.names.1: label 'caf\u00e9' is there already"),
            (("a\tb",), "labels.names.0: 'a\\tb' holds U+0009, "),
            (("a\u202eb",), "labels.names.0: 'a\\u202eb' holds U+202E RIGHT-TO-LEFT OVERRIDE, "),
            (("a\u200bb",), "labels.names.0: 'a\\u200bb' holds U+200B ZERO WIDTH SPACE, "),
        ],
    )
    def test_are_refused_with_their_place(self, names: tuple[str, ...], message: str) -> None:
        with pytest.raises(SpecError) as caught:
            load_labels(LabelsSpec(names=names))
        assert str(caught.value).startswith(message)

    def test_and_a_path_are_one_too_many(self) -> None:
        with pytest.raises(SpecError, match=r"labels\.path and labels\.names are both given"):
            load_labels(LabelsSpec(path="labels.txt", names=("cat",)))


class TestTxt:
    def test_has_a_label_a_line_with_comments_and_blank_lines(self, load: Load) -> None:
        text = "\ufeff# animals\r\ncat\r\n\r\n  dog, big \r\n#5\r\nC# code"
        assert load("a.txt", text).labels == plain("cat", "dog, big", "#5", "C# code")

    @pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
    def test_lines_end_as_on_any_system(self, load: Load, line_end: str) -> None:
        assert load("a.txt", line_end.join(["cat", "dog", ""])).labels == plain("cat", "dog")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("cat\n#\n\ncat\n", "a.txt line 4: label 'cat' is there already (a.txt line 1); "),
            ("# none\n\n", "a.txt holds no label; "),
            ("", "a.txt holds no label; "),
            (b"cat\nd\xf6g\n", "a.txt line 2: byte 0xf6 is not UTF-8; "),
            ("cat\n".encode("utf-16"), "a.txt line 1: byte 0xff is not UTF-8; "),
            ("cat\nd\x00og", "a.txt line 2: 'd\\x00og' holds U+0000, "),
            ("cat\nd\x0cog", "a.txt line 2: 'd\\x0cog' holds U+000C, "),
        ],
    )
    def test_faults_name_the_line(self, load: Load, content: str | bytes, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            load("a.txt", content)
        assert str(caught.value).startswith(message)


class TestCsv:
    def test_without_header_is_one_column(self, load: Load) -> None:
        assert load("a.csv", 'cat\n"dog, big"\n\n').labels == plain("cat", "dog, big")

    @pytest.mark.parametrize("header", ["label", "Name", " class ", '"label"', "\ufefflabel"])
    def test_header_is_known_by_its_word(self, load: Load, header: str) -> None:
        assert load("a.csv", f"{header}\ncat\n").labels == plain("cat")

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_other_columns_are_left_alone(self, load: Load, separator: str) -> None:
        text = "\nid,name,class\n1,cat,7\n2,dog,7\n3,cow\n".replace(",", separator)
        assert load("a.csv", text).labels == plain("cat", "dog", "cow")

    def test_prompts_of_several_rows_are_joined_at_the_first(self, load: Load) -> None:
        text = 'label,prompt\ncat,a cat\ndog,\ncat,"the {}, asleep"\ncat,a cat\n'
        label_set = load("a.csv", text)
        assert label_set.labels == (Label("cat", ("a cat", "the {}, asleep")), Label("dog"))
        assert label_set.prompts()[0] == ("a cat", "the cat, asleep")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("label,prompt\ncat,\ncat,x\n", "a.csv line 3: label 'cat' is there already (a.csv line 2); "),
            ("label,prompt\ncat,x\ncat,\n", "a.csv line 3: label 'cat' is there already (a.csv line 2); "),
            ('label,prompt\n"x\n{}",y\ncat,y\ncat,\n', "a.csv line 2: 'x\\n{}' holds U+000A, "),
            (
                'label,prompt\ncow,"x\ny"\ncat,y\ncat,\n',
                "a.csv line 5: label 'cat' is there already (a.csv line 4)",
            ),
            ("label,prompt\n ,x\n", "a.csv line 2: the label is empty; "),
            ("cat,dog\n", "a.csv line 1: 2 cells, expected 1; "),
            ("label,prompt\ncat,a,b\n", "a.csv line 2: 3 cells, expected 2; "),
            ('label\n"cat\n', "a.csv line 2: not CSV: "),
            ("label\n\n", "a.csv holds no label; "),
        ],
    )
    def test_faults_name_the_line(self, load: Load, content: str, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            load("a.csv", content)
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize("ending", ["json", "yaml", "yml"])
class TestJsonAndYaml:
    @pytest.mark.parametrize(
        ("document", "labels"),
        [
            (["cat", " dog "], plain("cat", "dog")),
            ([{"name": "cat"}, "dog"], plain("cat", "dog")),
            ([{"label": "cat", "prompt": "x"}], (Label("cat", ("x",)),)),
            ([{"name": "cat", "prompts": ["x", "x", " y\nz "]}], (Label("cat", ("x", "y z")),)),
            ({"cat": "x", "dog": ["y", "z"]}, (Label("cat", ("x",)), Label("dog", ("y", "z")))),
            ({"labels": ["cat", "dog"]}, plain("cat", "dog")),
            ({"labels": {"cat": ["x"]}}, (Label("cat", ("x",)),)),
        ],
    )
    def test_every_form(self, load: Load, ending: str, document: object, labels: tuple[Label, ...]) -> None:
        text = json.dumps(document) if ending == "json" else yaml.safe_dump(document, sort_keys=False)
        assert load(f"a.{ending}", text) == LabelSet(labels, TEMPLATE_SETS["simple"])

    def test_templates_of_the_file_yield_to_those_of_the_spec(self, load: Load, ending: str) -> None:
        text = json.dumps({"labels": ["cat"], "templates": ["a {}", "none"]})
        assert load(f"a.{ending}", text).templates == ("a {}", "{}")
        assert load(f"a.{ending}", text, templates="imagenet7").templates == TEMPLATE_SETS["imagenet7"]

    def test_one_template_needs_no_list(self, load: Load, ending: str) -> None:
        text = json.dumps({"labels": ["cat"], "templates": "imagenet7"})
        assert load(f"a.{ending}", text).templates == TEMPLATE_SETS["imagenet7"]

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ([], "holds no label"),
            ({"templates": ["a {}"]}, "labels is missing"),
            ({"labels": ["cat"], "template": "a {}"}, "'template' is not a field of a label file"),
            ({"labels": ["cat"], "templates": ["a"]}, "templates: 'a' has no {} for the label"),
            ([{"name": "cat", "weight": "1"}], "'weight' is not a field of a label"),
            ([{"name": "cat", "label": "cat"}], "a label has one name"),
            ([{"prompt": "cat"}], "a label has one name"),
            ([{"name": "cat", "prompts": []}], "label 'cat' has an empty list of prompts"),
            ([{"name": "cat", "prompt": " "}], "a prompt of label 'cat' is empty"),
            ([{"name": "cat", "prompt": "a\u200bb"}], "a prompt of label 'cat': 'a\\u200bb' holds U+200B"),
            ({"cat": {"prompts": [{"x": "y"}]}}, "expected a text, got a mapping"),
            ({"cat": {"name": "dog"}}, "'name' is not a field of the label 'cat'"),
            ({"cat": [["x"]]}, "expected a text, got a list"),
            ([["cat"]], "expected a text, got a list"),
            ("cat", "labels are a list, or a mapping from label to prompts"),
            (_nested(80), "nested too deeply"),
            (["cat", "cat"], "label 'cat' is there already"),
            (["cat", ""], "the label is empty"),
        ],
    )
    def test_faults(self, load: Load, ending: str, document: object, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            load(f"a.{ending}", json.dumps(document, ensure_ascii=False))
        assert str(caught.value).startswith(f"a.{ending}")
        assert message in str(caught.value)


class TestYaml:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("- cat\n- no\n", "a.yaml line 2: `no` is read as a truth value in YAML; put it in quotes"),
            ("- cat\n- on\n", "a.yaml line 2: `on` is read as a truth value in YAML; "),
            ("- 007\n", "a.yaml line 1: `007` is read as a number in YAML; "),
            ("- 1.50\n", "a.yaml line 1: `1.50` is read as a number in YAML; "),
            ("- null\n", "a.yaml line 1: `null` is read as nothing in YAML; "),
            ("- 2024-01-31\n", "a.yaml line 1: `2024-01-31` is read as a date in YAML; "),
            ("- !!python/name:os.system x\n", "a.yaml line 1: `x` is read as "),
            ("cat: x\nyes: y\n", "a.yaml line 2: `yes` is read as a truth value"),
            ("- cat\n-\n", "a.yaml line 2: the label is empty; "),
            ("- Alien: the film\n", "a.yaml line 1: 'Alien' is not a field of a label; "),
            ("cat: x\ncat: y\n", "a.yaml line 2: label 'cat' is there already (a.yaml line 1); "),
            ("- name: cat\n  name: dog\n", "a.yaml line 2: name is there already; "),
            ("labels: [cat]\ntemplates: [{}]\n", "a.yaml line 2: expected a text, got a mapping"),
            ("labels:\n- cat\ntemplates:\n- a\n", "a.yaml line 4: templates: 'a' has no {}"),
            ("# nothing\n", "a.yaml holds no label; "),
            ("- cat\n- [\n", "a.yaml line "),
            ("- é\n- c\x07t\n", "a.yaml line 2: not YAML: "),
            ("- cat\n---\n- dog\n", "a.yaml line 2: not YAML: "),
            ("&a [*a]\n", "a.yaml line 1: nested too deeply"),
        ],
    )
    def test_faults_name_the_line(self, load: Load, content: str, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            load("a.yaml", content)
        assert str(caught.value).startswith(message)

    def test_a_colon_is_the_first_suspect_where_a_mapping_makes_no_sense(self, load: Load) -> None:
        with pytest.raises(SpecError, match="a text that holds a colon needs quotes"):
            load("a.yaml", "- Alien: the film\n")

    def test_quotes_make_a_label_of_anything(self, load: Load) -> None:
        assert load("a.yaml", "- 'no'\n- \"1\"\n- 'a: b'\n").labels == plain("no", "1", "a: b")


class TestJson:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('["cat",\n1 2]', "a.json line 2: not JSON: "),
            ('["cat", 1]', "a.json: $[1]: `1` is read as a number in JSON; put it in quotes"),
            ("[true]", "a.json: $[0]: `true` is read as a truth value in JSON; "),
            ("[null]", "a.json: $[0]: `null` is read as nothing in JSON; "),
            ('{"cat": "x", "cat": "y"}', "a.json: $.cat: label 'cat' is there already"),
            ('{"labels": [{"name": "cat", "prompts": [1]}]}', "a.json: $.labels[0].prompts[0]: `1`"),
            ('["\\ud83d"]', "a.json: $[0]: '\\ud83d' holds U+D83D, "),
            ("", "a.json line 1: not JSON: "),
            ("[" * 100_000, "a.json: nested too deeply"),
        ],
    )
    def test_faults_name_the_place(self, load: Load, content: str, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            load("a.json", content)
        assert str(caught.value).startswith(message)


def test_a_file_of_unknown_ending_is_refused(load: Load) -> None:
    with pytest.raises(SpecError, match=r"labels\.path: 'a\.tsv' is no label file .* \.txt, \.csv, \.json"):
        load("a.tsv", "cat\n")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "none.txt")
    with pytest.raises(SpecError, match=r"labels\.path: .*none\.txt: No such file"):
        load_labels(LabelsSpec(path=path))


def test_the_ending_may_be_in_capitals(load: Load) -> None:
    assert load("A.TXT", "cat\n").names == ("cat",)


@given(NAMES)
def test_all_formats_say_the_same(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.mktemp("labels")
    names = [f"x{name}" for name in names]  # a leading # would be a comment in .txt
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    (folder / "a.txt").write_text("\n".join(names))
    (folder / "a.csv").write_text("label\n" + "\n".join(quoted))
    (folder / "a.json").write_text(json.dumps(names))
    (folder / "a.yaml").write_text(yaml.safe_dump(names, allow_unicode=True))
    expected = load_labels(LabelsSpec(names=tuple(names)))
    for name in ("a.txt", "a.csv", "a.json", "a.yaml"):
        loaded = load_labels(LabelsSpec(path=str(folder / name)))
        assert loaded == expected
        assert loaded.digest == expected.digest


class TestPrompts:
    def test_own_ones_replace_the_templates(self) -> None:
        label_set = LabelSet((Label("cat", ("x", "a {} {}")), Label("dog")), ("{}", "the {}"))
        assert label_set.prompts() == (("x", "a cat cat"), ("dog", "the dog"))

    def test_own_ones_may_name_the_place_as_templates_may(self, load: Load) -> None:
        assert load("a.json", '{"cat": "a {label}"}').prompts() == (("a cat",),)

    def test_each_is_there_once(self) -> None:
        assert LabelSet((Label("cat", ("{}", "cat")),), ()).prompts() == (("cat",),)


class TestDigest:
    LABELS = LabelSet((Label("cat", ("x", "y")), Label("dog")), ("a {}",))

    def test_is_of_what_is_asked_not_of_how_it_was_written(self) -> None:
        rendered = LabelSet((Label("cat", ("x", "y")), Label("dog", ("a dog",))), ("unused {}",))
        assert self.LABELS.digest == rendered.digest

    def test_is_the_sha256_of_names_and_prompts(self) -> None:
        text = b'{"names":["cat","dog"],"prompts":[["x","y"],["a dog"]]}'
        assert self.LABELS.digest == hashlib.sha256(text).hexdigest()

    def test_composes_what_was_not_composed(self) -> None:
        def digest(accented: str) -> str:
            return load_labels(LabelsSpec(names=(accented,), templates=(f"{accented} {{}}",))).digest

        assert digest("e\u0301") == digest("\u00e9")

    @pytest.mark.parametrize(
        "other",
        [
            LabelSet((Label("dog"), Label("cat", ("x", "y"))), ("a {}",)),
            LabelSet((Label("cat", ("y", "x")), Label("dog")), ("a {}",)),
            LabelSet((Label("cat", ("x", "y")), Label("dog")), ("the {}",)),
            LabelSet((Label("Cat", ("x", "y")), Label("dog")), ("a {}",)),
            LabelSet((Label("cat", ("x",)), Label("dog", ("y", "a dog"))), ("a {}",)),
        ],
        ids=["order of labels", "order of prompts", "template", "name", "owner of a prompt"],
    )
    def test_differs_with(self, other: LabelSet) -> None:
        assert self.LABELS.digest != other.digest


class TestAllThatALabelMaySay:
    FILE = """\
name: zoo
templates: {en: ["a photo of a {}."], de: ["ein Foto von {}."]}
language: en
context: a type of animal
reject: {background: [wall, sky], min_score: 0.3, min_margin: 0.1}
back_off: 0.6
labels:
  - name: bird
    children:
      - {name: robin, synonyms: [redbreast, robin], descriptions: "A {} has a red breast."}
      - name: Spatz
        language: de
        context: eine Vogelart
        threshold: 0.4
  - {name: cat, prompts: ["{} on a mat", "the {label}"], synonyms: kitty}
"""

    def test_becomes_prompts(self, load: Load) -> None:
        label_set = load("a.yaml", self.FILE)
        assert label_set.names == ("robin", "Spatz", "cat", "wall", "sky")
        assert label_set.prompts() == (
            (
                "a photo of a robin, a type of animal.",
                "a photo of a redbreast, a type of animal.",
                "A robin has a red breast.",
            ),
            ("ein Foto von Spatz, eine Vogelart.",),
            ("cat on a mat", "the cat", "kitty on a mat", "the kitty"),
            ("a photo of a wall.",),
            ("a photo of a sky.",),
        )

    def test_becomes_rules(self, load: Load) -> None:
        label_set = load("a.yaml", self.FILE)
        assert label_set.name == "zoo"
        assert label_set.rules == Rules(
            threshold_C=(None, 0.4, None, None, None),
            n_answers=3,
            min_score=0.3,
            min_margin=0.1,
            parents_C=(("bird",), ("bird",), (), (), ()),
            back_off=0.6,
        )
        assert Rules.from_dict(json.loads(json.dumps(label_set.rules.to_dict()))) == label_set.rules

    def test_of_several_labels_each_has_a_negative(self, load: Load) -> None:
        text = (
            "mode: multi\nnegative: 'no {} here'\nlabels:\n- cat\n- {name: dog, negative: [a wall, '{label} gone']}\n"
        )
        label_set = load("a.yaml", text)
        assert label_set.negatives() == (("no cat here",), ("a wall", "dog gone"))
        assert load("a.yaml", "mode: multi\nlabels: [cat]\n").negatives() == (("This is a photo of something else.",),)
        assert load("a.yaml", "labels: [cat]\n").negatives() == ()

    def test_shares_are_those_of_all(self, load: Load) -> None:
        assert load("a.yaml", "labels: {cat: {prior: 0.25}, dog: {prior: 0.75}}").prior_C == (0.25, 0.75)

    def test_templates_of_the_spec_are_for_all_languages(self, load: Load) -> None:
        prompts = load("a.yaml", self.FILE, templates="none").prompts()
        assert prompts[1] == ("Spatz, eine Vogelart",)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("labels: [cat]\nmode: many\n", "a.yaml line 2: mode: input should be 'single' or 'multi'; got 'many'"),
            ("labels:\n- {name: cat, prior: 2}\n", "a.yaml line 2: prior of label 'cat': input should be less than"),
            ("labels:\n- {name: cat, threshold: high}\n", "a.yaml line 2: threshold of label 'cat': "),
            ("mode: multi\nlables: [cat, dog]\n", "a.yaml line 2: 'lables' is not a field of a label file"),
            ("reject: {min_score: 0.5}\ncat: a cat\n", "a.yaml line 2: 'cat' is not a field of a label file"),
            ("mode: multi\n", "a.yaml line 1: labels is missing beside mode"),
            ("labels: [cat]\nreject: {min_score: 0.1, min_score: 0.9}\n", "a.yaml line 2: min_score is there already"),
            (
                "labels:\n- {name: cat, prompts: a cat, context: a pet}\n",
                "a.yaml line 2: label 'cat' has prompts",
            ),
            ("labels: [cat]\nname: my set\n", "a.yaml line 2: name: string should match pattern"),
            ("a: &a [x, x]\nb: &b [*a, *a]\nlabels: [cat]\n", "a.yaml line 1: 'a' is not a field"),
            ("labels: [cat]\nback_off: 0.5\n", "a.yaml line 2: back_off is given, and no label has children"),
            ("labels: [cat]\nreject: {score: 1}\n", "a.yaml line 2: 'score' is not a field of reject"),
            (
                "labels:\n- {name: cat, prior: 0.5}\n- dog\n",
                "a.yaml line 2: 1 of 2 labels have a prior, and 'dog' has none; ",
            ),
            ("labels: {cat: {prior: 0.5}, dog: {prior: 0.6}}\n", "a.yaml line 1: the priors add up to 1.1; "),
            (
                "mode: multi\nlabels:\n- {name: pet, children: [cat]}\n",
                "a.yaml line 1: mode is multi, and labels have children; ",
            ),
            ("mode: multi\nlabels: [cat]\nreject: {min_score: 0.1}\n", "a.yaml line 3: mode is multi, in which each "),
            ("labels: [cat]\nnegative: none\n", "a.yaml line 2: negative is for mode: multi"),
            (
                "labels:\n- name: pet\n  threshold: 0.5\n  children: [cat]\n",
                "a.yaml line 2: label 'pet' has children, whose scores make up its own, and so no threshold; ",
            ),
            ("labels:\n- {name: pet, children: [cat]}\n- cat\n", "a.yaml line 3: label 'cat' is there already "),
            (
                "labels: [cat]\nreject:\n  background:\n  - cat\n",
                "a.yaml line 4: label 'cat' is there already",
            ),
            ("labels:\n- {name: cat, synonyms: [' ']}\n", "a.yaml line 2: a synonym of label 'cat' is empty; "),
            ("labels:\n- {name: cat, language: de}\n", "a.yaml line 2: label 'cat' names a language, and the set has "),
            (
                "labels: [cat]\ntemplates: {en: 'a {}', de: 'ein {}'}\n",
                "a.yaml line 2: templates: they are given by language (en, de), so the set needs a `language` ",
            ),
            (
                "labels:\n- {name: cat, language: fr}\ntemplates: {en: 'a {}'}\n",
                "a.yaml line 2: there are no templates for the language 'fr'; ",
            ),
            ("labels: [cat]\ntemplates: {en: 'a'}\n", "a.yaml line 2: templates.en: 'a' has no {} for the label"),
        ],
    )
    def test_faults_name_line_and_label(self, load: Load, content: str, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            load("a.yaml", content)
        assert str(caught.value).startswith(message)

    def test_a_tree_may_be_deep(self, load: Load) -> None:
        text = "labels: [{animal: {children: {mammal: {children: {dog: {children: {labrador: {synonyms: [lab]}}}}}}}}]"
        text = text.replace("[{animal", "{animal").replace("}}]", "}}")
        assert load("a.yaml", text).rules.parents_C == (("animal", "mammal", "dog"),)

    def test_aliases_that_repeat_others_end(self) -> None:
        text = "labels: [cat]\ntemplates:\n- &a0 [x, x]\n"
        text += "".join(f"- &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
        with pytest.raises(SpecError, match="with all its aliases it holds more than 10,000 values"):
            read_yaml(text, "a.yaml", max_nodes=10_000)

    def test_the_digest_tells_rules_apart(self, load: Load) -> None:
        plain_set = load("a.yaml", "labels: [cat, dog]\n")
        others = [
            load("a.yaml", text)
            for text in (
                "labels: [cat, dog]\nreject: {min_score: 0.5}\n",
                "labels: [cat, dog]\nmode: multi\n",
                "labels: [cat, {name: pet, children: [dog]}]\n",
                "labels: {cat: {prior: 0.5}, dog: {prior: 0.5}}\n",
                "labels: [cat, {name: dog, threshold: 0.5}]\n",
            )
        ]
        assert len({label_set.digest for label_set in (plain_set, *others)}) == 6
        assert {label_set.prompts() for label_set in others} == {plain_set.prompts()}


class TestSchemaForEditors:
    VALIDATOR = Draft202012Validator(json_schema())

    def test_is_the_file_in_the_docs(self) -> None:
        path = Path(__file__).parents[2] / "docs" / "labels.schema.json"
        assert json.loads(path.read_text()) == json_schema(), (
            "write it again: zsic labels schema > docs/labels.schema.json"
        )

    @pytest.mark.parametrize(
        "document",
        [
            yaml.safe_load(TestAllThatALabelMaySay.FILE),
            ["cat", {"name": "dog", "prompt": "x"}, {"label": "cow"}],
            {"cat": "x", "dog": ["y", "z"], "cow": {"synonyms": ["cattle"]}},
            {"labels": {"pet": {"children": {"cat": ["a cat"], "dog": {"threshold": 0.5}}}}},
        ],
    )
    def test_takes_what_the_reader_takes(self, document: object, load: Load) -> None:
        self.VALIDATOR.validate(document)
        load("a.yaml", yaml.safe_dump(document))

    @pytest.mark.parametrize(
        "document",
        [
            "cat",
            [1],
            [{"prompt": "x"}],
            [{"name": "cat", "weight": 1}],
            [{"name": "cat", "label": "cat"}],
            {"labels": ["cat"], "mode": "many"},
            {"labels": ["cat"], "reject": {"score": 1}},
            {"cat": {"name": "dog"}},
            {"labels": [{"name": "cat", "prior": 2}]},
        ],
    )
    def test_refuses_what_the_reader_refuses(self, document: object, load: Load) -> None:
        assert not self.VALIDATOR.is_valid(document)
        with pytest.raises(SpecError):
            load("a.json", json.dumps(document))
