import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.scoring import TopK, link_scores, similarities, top_k


def _stable_sort(score_BC: torch.Tensor, k: int) -> torch.Tensor:
    rows = [sorted(range(len(row)), key=lambda c, row=row: -row[c])[:k] for row in score_BC.tolist()]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), k)


# Few distinct values, so that ties are the rule; -0.0 and 0.0 are equal too.
_scores = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, float("inf"), -float("inf"), 1e-45])


@given(data=st.data(), n_images=st.integers(0, 4), n_labels=st.integers(1, 9))
def test_top_k_is_the_head_of_a_stable_sort(data: st.DataObject, n_images: int, n_labels: int) -> None:
    row = st.lists(_scores, min_size=n_labels, max_size=n_labels)
    rows = data.draw(st.lists(row, min_size=n_images, max_size=n_images))
    k = data.draw(st.integers(1, n_labels))
    score_BC = torch.tensor(rows, dtype=torch.float32).reshape(n_images, n_labels)
    similarity_BC = torch.rand(n_images, n_labels)
    top = top_k(score_BC, similarity_BC, k)
    expected_BK = _stable_sort(score_BC, k)
    assert torch.equal(top.label_index_BK.long(), expected_BK)
    assert torch.equal(top.score_BK, score_BC.gather(1, expected_BK))
    assert torch.equal(top.similarity_BK, similarity_BC.gather(1, expected_BK))


@given(seed=st.integers(0, 2**16), n_labels=st.integers(2, 300))
def test_all_labels_equal_keep_their_order(seed: int, n_labels: int) -> None:
    k = seed % n_labels + 1
    top = top_k(torch.full((3, n_labels), 0.5), torch.zeros(3, n_labels), k)
    assert top.label_index_BK.tolist() == [list(range(k))] * 3


@given(seed=st.integers(0, 2**16))
def test_permuting_labels_permutes_answers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    score_BC = torch.rand(4, 20, generator=generator)
    order_C = torch.randperm(20, generator=generator)
    plain = top_k(score_BC, score_BC, 5)
    shuffled = top_k(score_BC[:, order_C], score_BC[:, order_C], 5)
    assert torch.equal(plain.score_BK, shuffled.score_BK)
    assert torch.equal(plain.label_index_BK.long(), order_C[shuffled.label_index_BK.long()])


def test_types_are_what_the_table_holds() -> None:
    top = top_k(torch.rand(2, 3), torch.rand(2, 3), 2)
    assert isinstance(top, TopK)
    assert top.label_index_BK.dtype == torch.int32
    assert top.score_BK.dtype == top.similarity_BK.dtype == torch.float32


def test_links() -> None:
    similarity_BC = torch.tensor([[0.5, 0.25, -0.5]])
    softmax_BC = link_scores(similarity_BC, "softmax", scale=10.0)
    assert softmax_BC.sum().item() == pytest.approx(1.0)
    assert (softmax_BC[0, 0] / softmax_BC[0, 1]).item() == pytest.approx(2.718281828**2.5, rel=1e-5)
    sigmoid_BC = link_scores(similarity_BC, "sigmoid", scale=10.0, bias=-5.0)
    assert sigmoid_BC[0].tolist() == pytest.approx([0.5, 1 / (1 + 2.718281828**2.5), 1 / (1 + 2.718281828**10)])


def test_similarities_of_half_precision_are_float32() -> None:
    image_BD = torch.eye(3)[:2].half()
    similarity_BC = similarities(image_BD, torch.eye(3))
    assert similarity_BC.dtype == torch.float32
    assert similarity_BC.tolist() == [[1, 0, 0], [0, 1, 0]]
