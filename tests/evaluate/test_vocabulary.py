import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.labels import Label
from zsic.evaluate.vocabulary import NOBODY, TrueLabels, Vocabulary, fold, synonyms_of


def test_folding_takes_case_and_white_space_out() -> None:
    assert fold("  Polar \t BEAR ") == fold("polar bear") == "polar bear"
    assert fold("cafe\u0301") == fold("CAF\u00c9")
    assert fold("Straße") == fold("STRASSE")


class TestTruth:
    def test_is_the_label_as_it_is_written_before_anything_else(self) -> None:
        vocabulary = Vocabulary(["turkey", "Turkey"], {"turkey": "Turkey"})
        assert [vocabulary.true("turkey"), vocabulary.true("Turkey")] == [0, 1]

    def test_then_without_case_and_space(self) -> None:
        vocabulary = Vocabulary(["polar bear", "cat"])
        assert vocabulary.true("Polar  Bear") == 0
        assert vocabulary.names == ["polar bear", "cat"]

    def test_that_is_like_two_labels_is_neither(self) -> None:
        vocabulary = Vocabulary(["turkey", "Turkey"])
        assert vocabulary.true("TURKEY") == 2
        assert vocabulary.names[2] == "TURKEY"

    def test_then_a_synonym_in_any_spelling(self) -> None:
        vocabulary = Vocabulary(["cat", "dog"], {"felis  catus": "cat", "hound": "Dog"})
        assert [vocabulary.true(name) for name in ("Felis Catus", "HOUND", "cat")] == [0, 1, 0]

    def test_keeps_what_is_none_of_these_under_its_own_name(self) -> None:
        vocabulary = Vocabulary(["cat"])
        assert [vocabulary.true("Horse"), vocabulary.true("horse")] == [1, 1]
        assert (vocabulary.names, vocabulary.n_known) == (["cat", "Horse"], 1)

    def test_a_synonym_of_itself_is_no_loop(self) -> None:
        assert Vocabulary(["cat"], {"horse": "Horse"}).true("horse") == 1


class TestAnswers:
    def test_are_taken_as_they_are(self) -> None:
        vocabulary = Vocabulary(["cat", "Cat"])
        texts = pa.array(["Cat", None, "cat", "CAT"])
        assert vocabulary.answered(texts).tolist() == [1, NOBODY, 0, 2]
        assert vocabulary.answered(texts.dictionary_encode()).tolist() == [1, NOBODY, 0, 2]
        assert vocabulary.answered(pa.array([], pa.string())).tolist() == []

    def test_lend_their_spelling_to_a_truth_that_came_before(self) -> None:
        vocabulary = Vocabulary(None)
        assert vocabulary.true("CAT") == 0
        assert vocabulary.answered(pa.array(["cat", "dog"])).tolist() == [0, 1]
        assert vocabulary.true("Cat") == 0
        assert vocabulary.names == ["cat", "dog"]

    def test_of_an_unknown_set_do_not_swallow_one_another(self) -> None:
        vocabulary = Vocabulary(None)
        assert vocabulary.answered(pa.array(["cat", "Cat"])).tolist() == [0, 1]


ANSWERS = st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=4), min_size=1, max_size=12)


@given(ANSWERS, st.integers(1, 12), st.data())
def test_labels_of_answers(answers: list[list[str]], n_first: int, data: st.DataObject) -> None:
    vocabulary = Vocabulary(list("gfed"))
    labels = TrueLabels(vocabulary)
    tuples = [tuple(each) for each in answers]
    labels.learn(tuples[:n_first])
    labels.learn(tuples)
    code_B = np.array(data.draw(st.lists(st.integers(0, len(answers) - 1), max_size=20)), np.int64)
    row_N, label_N = labels.spread(code_B)
    got: list[set[str]] = [set() for _ in code_B]
    for row, label in zip(row_N, label_N, strict=True):
        got[row].add(vocabulary.names[label])
    assert got == [set(answers[code]) for code in code_B]
    assert len(row_N) == sum(map(len, got))
    for label in range(-2, len(vocabulary)):
        is_held = labels.hold(code_B, np.full(len(code_B), label))
        assert is_held.tolist() == [label >= 0 and vocabulary.names[label] in answers[code] for code in code_B]


def test_synonyms_come_from_labels_that_have_some() -> None:
    class Named:
        name = "cat"
        synonyms = ("Felis Catus", "house cat")

    assert synonyms_of([Named(), Label("dog")]) == {"felis catus": "cat", "house cat": "cat"}


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_label_folds_to_nothing(text: str) -> None:
    assert fold(text) == ""
