import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.scoring import Link
from zsic.core.tree import Tree

LABELS = ("robin", "sparrow", "cat", "car")
PARENTS = (("animal", "bird"), ("animal", "bird"), ("animal",), ())
NAMES = (*LABELS, "animal", "bird")


def walk(score: dict[str, float], need: dict[str, float]) -> str:
    """The rule in words, one image at a time: from the best at the top to the best child that has what it needs."""
    children = {"": ["car", "animal"], "animal": ["cat", "bird"], "bird": ["robin", "sparrow"]}
    answer = max(children[""], key=score.__getitem__)
    while (below := children.get(answer)) and score[best := max(below, key=score.__getitem__)] >= need[best]:
        answer = best
    return answer


def test_answers_are_labels_and_then_what_is_above_them() -> None:
    tree = Tree(LABELS, PARENTS)
    assert tree.names == NAMES
    assert tree.paths == (
        ("animal", "bird", "robin"),
        ("animal", "bird", "sparrow"),
        ("animal", "cat"),
        ("car",),
        ("animal",),
        ("animal", "bird"),
    )
    assert (tree.n_labels, tree.n_above) == (4, 2)


@pytest.mark.parametrize(
    ("link", "animal", "bird"), [("softmax", 0.6, 0.5), ("sigmoid", 1 - 0.8 * 0.7 * 0.9, 1 - 0.8 * 0.7)]
)
def test_scores_roll_up_as_the_link_has_it(link: Link, animal: float, bird: float) -> None:
    score_BN = Tree(LABELS, PARENTS).roll_up(torch.tensor([[0.2, 0.3, 0.1, 0.4]]), link)
    torch.testing.assert_close(score_BN, torch.tensor([[0.2, 0.3, 0.1, 0.4, animal, bird]]))


def test_a_certain_label_makes_what_is_above_it_certain() -> None:
    score_BN = Tree(LABELS, PARENTS).roll_up(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), "sigmoid")
    assert score_BN.isfinite().all()
    assert score_BN[0, 4] == pytest.approx(1, abs=1e-6)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6),
)
def test_descending_is_the_rule_in_words(scores: list[float], needs: list[float]) -> None:
    tree = Tree(LABELS, PARENTS)
    total = sum(scores) or 1.0
    score_BN = tree.roll_up(torch.tensor([[each / total for each in scores]]), "softmax")
    if len(set(score_BN[0].tolist())) < 6:
        return  # which of equal ones is better is told elsewhere
    answer = tree.descend(score_BN, torch.tensor(needs))
    expected = walk(
        dict(zip(NAMES, score_BN[0].tolist(), strict=True)), dict(zip(NAMES, torch.tensor(needs).tolist(), strict=True))
    )
    assert NAMES[int(answer[0])] == expected


def test_the_more_a_child_needs_the_higher_the_answer() -> None:
    tree = Tree(LABELS, PARENTS)
    score_BN = tree.roll_up(torch.rand(200, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=1), "softmax")
    depths = [
        torch.tensor([len(tree.paths[int(i)]) for i in tree.descend(score_BN, torch.full((6,), need))])
        for need in (0.0, 0.3, 0.5, 0.7, 1.1)
    ]
    for low, high in itertools.pairwise(depths):
        assert (low >= high).all()
    assert (depths[-1] == 1).all()
