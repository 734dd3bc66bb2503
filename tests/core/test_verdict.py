import pytest
import torch

from zsic.core.rules import Rules
from zsic.core.scoring import Link, TopK, rank_logits
from zsic.core.tree import Tree
from zsic.core.verdict import NONE, Scored, Verdict, join, judge


def decide(score: list[float], rules: Rules, *, link: Link = "sigmoid", tree: Tree | None = None) -> Verdict:
    """Judge one image by its scores; its similarities are a tenth of them."""
    score_BC = torch.tensor([score])
    logit_BC = score_BC.logit() if link == "sigmoid" else score_BC.log()
    top, made_BC = rank_logits(logit_BC, score_BC / 10, len(score), link)
    torch.testing.assert_close(made_BC, score_BC)
    return judge(top, Scored(made_BC, logit_BC), rules, link, tree)


def answer(score: list[float], rules: Rules) -> int:
    return int(decide(score, rules).answer_B[0])


class TestOneLabel:
    def test_is_the_best_by_default(self) -> None:
        verdict = decide([0.1, 0.7, 0.2], Rules())
        assert verdict.answer_B.tolist() == [1]
        assert verdict.answer_B.dtype == torch.int32
        assert verdict.score_B.tolist() == pytest.approx([0.7])
        assert verdict.fits is None

    @pytest.mark.parametrize(
        ("rules", "is_rejected"),
        [
            (Rules(min_score=0.7), False),
            (Rules(min_score=0.71), True),
            (Rules(min_similarity=0.07), False),
            (Rules(min_similarity=0.071), True),
            (Rules(min_margin=0.49), False),
            (Rules(min_margin=0.51), True),
            (Rules(threshold_C=(None, 0.7, None)), False),
            (Rules(threshold_C=(None, 0.71, None)), True),
            (Rules(threshold_C=(0.9, None, 0.9)), False),
            (Rules(n_answers=2), False),
            (Rules(n_answers=1), True),
            (Rules(min_score=0.1, min_margin=0.9), True),
        ],
    )
    def test_is_rejected_by_each_rule(self, rules: Rules, is_rejected: bool) -> None:
        score = [0.1, torch.tensor(0.7).item() + 1e-6, 0.2]
        assert answer(score, rules) == (NONE if is_rejected else 1)

    def test_that_is_the_only_one_has_no_margin_to_miss(self) -> None:
        assert answer([0.3], Rules(min_margin=0.9)) == 0


class TestSeveralLabels:
    RULES = Rules(mode="multi", threshold_C=(None, 0.9, 0.3))

    def test_are_those_that_pass_best_first(self) -> None:
        verdict = decide([0.6, 0.8, 0.7], self.RULES)
        assert verdict.fits is not None
        assert verdict.fits.label_P.tolist() == [2, 0]
        assert verdict.answer_B.tolist() == [2], "the best does not pass, so it is no answer"
        assert verdict.score_B.tolist() == pytest.approx([0.7])

    def test_may_be_none(self) -> None:
        verdict = decide([0.4, 0.8, 0.1], self.RULES)
        assert verdict.answer_B.tolist() == [NONE]
        assert verdict.fits is not None
        assert verdict.fits.image_P.tolist() == []

    def test_equal_ones_keep_label_order(self) -> None:
        verdict = decide([0.6, 0.6, 0.6], Rules(mode="multi"))
        assert verdict.fits is not None
        assert verdict.fits.label_P.tolist() == [0, 1, 2]

    def test_that_are_all_sure_are_told_apart_by_their_logits(self) -> None:
        logit_BC = torch.tensor([[20.0, 40.0, -1.0, 30.0]])
        top, score_BC = rank_logits(logit_BC, logit_BC / 100, 4, "sigmoid")
        assert score_BC[0, :2].tolist() == [1.0, 1.0]
        verdict = judge(top, Scored(score_BC, logit_BC), Rules(mode="multi"), "sigmoid")
        assert verdict.fits is not None
        assert verdict.fits.label_P.tolist() == [1, 3, 0]
        assert verdict.answer_B.tolist() == [1] == top.label_index_BK[:, 0].tolist()

    def test_of_many_images_stay_together(self) -> None:
        score_BC = torch.rand(50, 8, generator=torch.Generator().manual_seed(0))
        top, made_BC = rank_logits(score_BC.logit(), score_BC, 8, "sigmoid")
        verdict = judge(top, Scored(made_BC, score_BC.logit()), Rules(mode="multi"), "sigmoid")
        assert verdict.fits is not None
        for image in range(50):
            found = verdict.fits.label_P[verdict.fits.image_P == image].tolist()
            expected = sorted((c for c in range(8) if made_BC[image, c] >= 0.5), key=lambda c: -made_BC[image, c])
            assert found == expected
        assert verdict.fits.image_P.tolist() == sorted(verdict.fits.image_P.tolist())


class TestATree:
    TREE = Tree(("robin", "sparrow", "car", "nothing"), (("bird",), ("bird",), (), ()))

    def decide(self, score: list[float], rules: Rules) -> str | None:
        verdict = decide(score, rules, link="softmax", tree=self.TREE)
        at = int(verdict.answer_B[0])
        return None if at == NONE else self.TREE.names[at]

    def test_backs_off_where_children_are_unsure(self) -> None:
        rules = Rules(parents_C=(("bird",), ("bird",), (), ()), back_off=0.5)
        assert self.decide([0.6, 0.2, 0.1, 0.1], rules) == "robin"
        assert self.decide([0.4, 0.3, 0.2, 0.1], rules) == "bird"
        assert self.decide([0.2, 0.2, 0.3, 0.3], rules) == "bird", "together they are the best"

    def test_a_label_s_own_threshold_takes_the_place_of_back_off(self) -> None:
        rules = Rules(parents_C=(("bird",), ("bird",), (), ()), back_off=0.5, threshold_C=(0.3, None, 0.6, None))
        assert self.decide([0.4, 0.3, 0.2, 0.1], rules) == "robin"
        assert self.decide([0.2, 0.2, 0.5, 0.1], rules) is None, "what has no parent to back off to is rejected"

    def test_background_is_no_answer_and_what_is_above_labels_is_one(self) -> None:
        rules = Rules(parents_C=(("bird",), ("bird",), (), ()), back_off=0.5, n_answers=3)
        assert self.decide([0.1, 0.1, 0.2, 0.6], rules) is None
        assert self.decide([0.3, 0.3, 0.2, 0.2], rules) == "bird"


def test_verdicts_on_parts_make_the_verdict_on_all() -> None:
    score_BC = torch.rand(30, 5, generator=torch.Generator().manual_seed(1))
    rules = Rules(mode="multi")

    def of(part_BC: torch.Tensor) -> Verdict:
        top, made_BC = rank_logits(part_BC.logit(), part_BC, 2, "sigmoid")
        return judge(top, Scored(made_BC, part_BC.logit()), rules, "sigmoid")

    whole, joined = of(score_BC), join([of(part) for part in score_BC.split(7)])
    assert isinstance(joined.top, TopK)
    for ours, theirs in zip(
        (*joined.top, *joined[1:3], *(joined.fits or ())), (*whole.top, *whole[1:3], *(whole.fits or ())), strict=True
    ):
        assert torch.equal(ours, theirs)
