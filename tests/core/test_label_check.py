import numpy as np

from zsic.core.label_check import Finding, check_labels
from zsic.core.labels import Label, LabelSet
from zsic.core.rules import Rules


def label_set(*names: str, templates: tuple[str, ...] = ("a {}",)) -> LabelSet:
    return LabelSet(tuple(Label(name) for name in names), templates)


def count_words(prompt: str) -> int:
    return len(prompt.split())


def found(findings: list[Finding]) -> list[tuple[str, tuple[str, ...]]]:
    return [(finding.kind, finding.labels) for finding in findings]


def test_nothing_is_found_in_a_plain_set() -> None:
    similarity_CC = np.eye(3, dtype=np.float32)
    labels = label_set("cat", "dog", "hot dog")
    assert check_labels(labels, count_tokens=count_words, token_limit=3, similarity_CC=similarity_CC) == []


def test_one_label_is_found() -> None:
    assert found(check_labels(label_set("cat"))) == [("one_label", ("cat",))]


def test_case_and_white_space_do_not_tell_labels_apart() -> None:
    labels = label_set("Hot dog", "cat", "hot  Dog", "STRASSE", "stra\u00dfe", "hot\u00a0dog")
    assert found(check_labels(labels)) == [
        ("same_letters", ("Hot dog", "hot  Dog", "hot\u00a0dog")),
        ("same_letters", ("STRASSE", "stra\u00dfe")),
    ]


def test_equal_prompts_do_not_tell_labels_apart_in_any_order() -> None:
    labels = LabelSet((Label("a", ("x", "y")), Label("b", ("y", "x")), Label("c", ("x",))), ())
    assert found(check_labels(labels)) == [("same_prompts", ("a", "b"))]


def test_prompts_over_the_limit_are_counted_and_the_longest_is_shown() -> None:
    labels = label_set("cat", "very big dog", templates=("a {}", "a photo of {}", "{}"))
    (finding,) = check_labels(labels, count_tokens=count_words, token_limit=4)
    assert (finding.kind, finding.labels) == ("too_long", ("very big dog",))
    assert "1 of 3 prompts" in finding.message
    assert "the longest has 6: 'a photo of very big dog'" in finding.message


def test_a_prompt_of_just_the_limit_is_not_too_long() -> None:
    labels = label_set("cat", "dog", templates=("a photo of {}",))
    assert check_labels(labels, count_tokens=count_words, token_limit=4) == []


def test_near_duplicates_are_found_once_a_pair_from_the_threshold_on() -> None:
    similarity_CC = np.array([[1, 0.97, 0.1], [0.97, 1, 0.969], [0.1, 0.969, 1]])
    labels = label_set("couch", "sofa", "chair")
    assert found(check_labels(labels, similarity_CC=similarity_CC)) == [("near_duplicate", ("couch", "sofa"))]
    assert found(check_labels(labels, similarity_CC=similarity_CC, near_duplicate=0.9)) == [
        ("near_duplicate", ("couch", "sofa")),
        ("near_duplicate", ("sofa", "chair")),
    ]
    (finding,) = check_labels(labels, similarity_CC=similarity_CC)
    assert "(cosine 0.970)" in finding.message


def test_a_name_that_several_labels_go_by_is_told() -> None:
    labels = (Label("cat", synonyms=("Kitty", "pet")), Label("kitty"), Label("dog", synonyms=("pet",)))
    found = [f for f in check_labels(LabelSet(labels, ("a {}",))) if f.kind == "same_name"]
    assert [finding.labels for finding in found] == [("cat", "kitty"), ("cat", "dog")]
    assert "'Kitty' is a label, and a synonym of another" in found[0].message
    assert "'pet' is a synonym of both" in found[1].message


def test_synonyms_without_a_place_are_told() -> None:
    labels = (Label("cat", ("on a mat",), synonyms=("kitty",)), Label("dog", ("a {}",), synonyms=("hound",)))
    found = [f for f in check_labels(LabelSet(labels, ())) if f.kind == "no_place"]
    assert [finding.labels for finding in found] == [("cat",)]


def test_shares_are_told() -> None:
    labels = LabelSet((Label("cat"), Label("dog")), ("a {}",), prior_C=(0.5, 0.5))
    assert [finding.kind for finding in check_labels(labels)] == ["shares"]


def test_labels_that_pass_at_a_score_that_means_nothing_are_told_where_there_are_negatives() -> None:
    rules = Rules(mode="multi", threshold_C=(0.9, None, None))
    labels = LabelSet(label_set("cat", "dog", "cow").labels, ("a {}",), rules=rules)
    assert check_labels(labels) == []
    (finding,) = check_labels(labels, contrasted=True)
    assert (finding.kind, finding.labels) == ("no_threshold", ("dog", "cow"))
    assert finding.message.startswith("'dog' and 1 more: no `threshold`, and so an answer from 0.5 on")
    all_have = LabelSet(labels.labels, ("a {}",), rules=Rules(mode="multi", threshold_C=(0.9, 0.8, 0.7)))
    assert check_labels(all_have, contrasted=True) == []


def test_labels_that_name_their_rivals_need_no_threshold_and_none_is_its_own() -> None:
    labels = (Label("cat", negative=("a photo of a dog.",)), Label("dog", negative=("a {}", "a photo of a dog.")))
    label_set = LabelSet(labels, ("a photo of a {}.",), rules=Rules(mode="multi"))
    found = check_labels(label_set, contrasted=True)
    assert [(finding.kind, finding.labels) for finding in found] == [("own_negative", ("dog",))]


def test_negative_prompts_over_the_limit_are_told_where_they_are_read() -> None:
    rules = Rules(mode="multi", threshold_C=(0.9, 0.9))
    labels = LabelSet(
        (Label("cat"), Label("dog", negative=("no {} at all",))), ("a {}",), rules=rules, negative=("no",)
    )
    assert check_labels(labels, count_tokens=count_words, token_limit=3) == []
    findings = check_labels(labels, count_tokens=count_words, token_limit=3, contrasted=True)
    assert found(findings) == [("too_long", ("dog",))]
    assert "'no dog at all'" in findings[0].message
