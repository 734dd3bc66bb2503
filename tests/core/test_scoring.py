import torch
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.scoring import Link, TopK, rank, similarities, top_k


def _stable_sort(value_BC: torch.Tensor, k: int) -> torch.Tensor:
    rows = [sorted(range(len(row)), key=lambda c, row=row: -row[c])[:k] for row in value_BC.tolist()]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), k)


# Few distinct values, so that ties are the rule; -0.0 and 0.0 are equal too.
_values = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, float("inf"), -float("inf"), 1e-45])


@given(data=st.data(), n_images=st.integers(0, 4), n_labels=st.integers(1, 9))
def test_top_k_is_the_head_of_a_stable_sort(data: st.DataObject, n_images: int, n_labels: int) -> None:
    row = st.lists(_values, min_size=n_labels, max_size=n_labels)
    rows = data.draw(st.lists(row, min_size=n_images, max_size=n_images))
    k = data.draw(st.integers(1, n_labels))
    value_BC = torch.tensor(rows, dtype=torch.float32).reshape(n_images, n_labels)
    value_BK, index_BK = top_k(value_BC, k)
    expected_BK = _stable_sort(value_BC, k)
    assert torch.equal(index_BK, expected_BK)
    assert torch.equal(value_BK, value_BC.gather(1, expected_BK))


@given(seed=st.integers(0, 2**16), n_labels=st.integers(2, 300))
def test_all_labels_equal_keep_their_order(seed: int, n_labels: int) -> None:
    k = seed % n_labels + 1
    _, index_BK = top_k(torch.full((3, n_labels), 0.5), k)
    assert index_BK.tolist() == [list(range(k))] * 3


@given(seed=st.integers(0, 2**16))
def test_permuting_labels_permutes_answers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    value_BC = torch.rand(4, 20, generator=generator)
    order_C = torch.randperm(20, generator=generator)
    value_BK, index_BK = top_k(value_BC, 5)
    shuffled_BK, where_BK = top_k(value_BC[:, order_C], 5)
    assert torch.equal(value_BK, shuffled_BK)
    assert torch.equal(index_BK, order_C[where_BK])


@given(
    seed=st.integers(0, 2**16),
    n_labels=st.integers(1, 30),
    link=st.sampled_from(["softmax", "sigmoid"]),
    scale=st.floats(0.1, 200),
    bias=st.floats(-20, 20),
)
def test_scores_are_the_link_of_all_logits(seed: int, n_labels: int, link: Link, scale: float, bias: float) -> None:
    """Against the definition, in float64."""
    similarity_BC = 2 * torch.rand(5, n_labels, generator=torch.Generator().manual_seed(seed)) - 1
    logit_BC = similarity_BC.double() * scale + bias
    score_BC = logit_BC.softmax(dim=1) if link == "softmax" else logit_BC.sigmoid()
    k = seed % n_labels + 1
    top = rank(similarity_BC.clone(), k, link, scale=scale, bias=bias)
    index_BK = top.label_index_BK.long()
    torch.testing.assert_close(top.score_BK.double(), score_BC.gather(1, index_BK), rtol=2e-4, atol=1e-7)
    assert torch.equal(top.similarity_BK, similarity_BC.gather(1, index_BK))
    assert torch.equal(index_BK, _stable_sort(similarity_BC, k))


def test_where_scores_vanish_similarity_still_orders() -> None:
    """Logits of 100, 0 and -20 have scores of 1, 0 and 0 in float32."""
    top = rank(torch.tensor([[-0.2, 1.0, 0.0]]), 3, "softmax", scale=1000.0)
    assert top.label_index_BK.tolist() == [[1, 2, 0]]
    assert top.score_BK.tolist() == [[1, 0, 0]]


def test_types_are_what_the_table_holds() -> None:
    top = rank(torch.rand(2, 3), 2, "softmax", scale=1.0)
    assert isinstance(top, TopK)
    assert top.label_index_BK.dtype == torch.int32
    assert top.score_BK.dtype == top.similarity_BK.dtype == torch.float32


def test_similarities_of_half_precision_are_float32() -> None:
    image_BD = torch.eye(3)[:2].half()
    similarity_BC = similarities(image_BD, torch.eye(3))
    assert similarity_BC.dtype == torch.float32
    assert similarity_BC.tolist() == [[1, 0, 0], [0, 1, 0]]
