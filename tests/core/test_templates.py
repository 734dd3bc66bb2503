import hashlib
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.errors import SpecError
from zsic.core.templates import TEMPLATE_SETS, render, resolve_templates


@pytest.mark.parametrize(
    ("name", "n", "sha256"),
    # Of the lists in openai/CLIP's notebook, joined by line ends; open_clip has the same ones as lambdas.
    [
        ("imagenet7", 7, "6ef3883987d224b7949da69fe0b615af152e1560eaac4c5c38555e50c882d415"),
        ("imagenet80", 80, "4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af"),
    ],
)
def test_published_sets_are_complete_and_in_order(name: str, n: int, sha256: str) -> None:
    templates = TEMPLATE_SETS[name]
    assert len(set(templates)) == len(templates) == n
    assert hashlib.sha256("\n".join(templates).encode()).hexdigest() == sha256


def test_the_seven_are_some_of_the_eighty() -> None:
    assert set(TEMPLATE_SETS["imagenet7"]) < set(TEMPLATE_SETS["imagenet80"])


def test_simple_is_the_default_of_the_transformers_pipeline() -> None:
    assert TEMPLATE_SETS["simple"] == ("This is a photo of {}.",)


@pytest.mark.parametrize("name", TEMPLATE_SETS)
def test_each_set_stands_for_its_own_sentences(name: str) -> None:
    assert resolve_templates([name]) == TEMPLATE_SETS[name]
    assert resolve_templates(TEMPLATE_SETS[name]) == TEMPLATE_SETS[name]


def test_sets_and_sentences_mix_in_order_and_repeated_ones_are_dropped() -> None:
    resolved = resolve_templates(["none", "itap of a {}.", "imagenet7", "a {label} from above", "{}"])
    assert resolved == ("{}", *TEMPLATE_SETS["imagenet7"], "a {} from above")


def test_none_at_all_stays_none() -> None:
    assert resolve_templates([]) == ()


def test_white_space_is_single_spaces() -> None:
    assert resolve_templates(["  a photo\n of   a {}. "]) == ("a photo of a {}.",)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("imagenet8", "no {} for the label"),
        ("a photo of a {c}.", "no {} for the label"),
        ("", "no {} for the label"),
        ("a {} and a {}", "2 places for the label"),
        ("a {} and a {label}", "2 places for the label"),
        ("a \x1b {}", "U+001B"),
    ],
)
def test_anything_else_is_refused_with_field_value_and_advice(entry: str, complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve_templates(["simple", entry], "labels.yaml line 3: templates")
    message = str(caught.value)
    assert message.startswith("labels.yaml line 3: templates: ")
    assert repr(entry) in message
    assert complaint in message


def test_advice_names_the_sets_and_the_field_is_the_spec_s_by_default() -> None:
    with pytest.raises(
        SpecError, match=r"^labels\.templates: .* simple, imagenet7, imagenet80, none, simple-de, .*, simple-zh$"
    ):
        resolve_templates(["photo"])


@given(st.text("ab {}0\u0301e"))
def test_a_name_is_put_in_as_it_is_whatever_braces_it_holds(name: str) -> None:
    assert render("a {0} of {}, {x}", name) == normalize("NFC", "a {0} of " + name + ", {x}")


def test_prompts_are_composed() -> None:
    assert render("caf{}", "e\u0301") == "caf\u00e9"
