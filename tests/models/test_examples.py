import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from zsic.core.errors import SpecError
from zsic.models.examples import WEIGHTS, blend_examples
from zsic.models.leave_one_out import leave_one_out

Floats = npt.NDArray[np.float64]


def _unit(x: Floats) -> npt.NDArray[np.float32]:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _pose(
    n_C: list[int], dim: int = 12, *, text: float = 0.5, noise: float = 0.7, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Labels with text rows, and pictures of them in a cone far from the texts', noisier in some directions."""
    rng = np.random.default_rng(seed)
    centre_CD = rng.standard_normal((len(n_C), dim))
    text_CD = text * centre_CD + rng.standard_normal((len(n_C), dim)) + 3 * rng.standard_normal(dim)
    truth_N = np.repeat(np.arange(len(n_C)), n_C)
    widths_D = np.linspace(0.2, 2, dim)
    image_ND = centre_CD[truth_N] + noise * widths_D * rng.standard_normal((len(truth_N), dim))
    return _unit(text_CD), _unit(image_ND + 3 * rng.standard_normal(dim)), truth_N


def _naive_rows(
    text_CD: Floats, image_ND: Floats, truth_N: npt.NDArray[np.int64], weight: float
) -> tuple[Floats, Floats]:
    """The definition, label by label; rows and offsets over scale."""
    seen = sorted(set(truth_N.tolist()))
    rows, offsets = text_CD.astype(float).copy(), np.zeros(len(text_CD))
    if not seen:
        return rows, offsets
    prototypes = {label: image_ND[truth_N == label].mean(axis=0) for label in seen}
    mean = np.mean(list(prototypes.values()), axis=0)
    dim = len(mean)
    scatter = np.zeros((dim, dim))
    for x, label in zip(image_ND, truth_N.tolist(), strict=True):
        scatter += np.outer(x - prototypes[label], x - prototypes[label])
    n_free = len(truth_N) - len(seen)
    q = np.eye(dim)
    if n_free and np.trace(scatter) > 1e-9:
        ridge = np.trace(scatter) / n_free
        q = (np.trace(scatter) / dim + ridge) * np.linalg.inv(scatter + ridge * np.eye(dim))
    for label in seen:
        row = text_CD[label] + weight * q @ (prototypes[label] - mean)
        rows[label] = row / np.linalg.norm(row)
        offsets[label] = -(rows[label] - text_CD[label]) @ mean
    return rows, offsets


def _naive_share(
    text_CD: Floats, image_ND: Floats, truth_N: npt.NDArray[np.int64], weight: float, *, whole_label: bool = False
) -> float:
    right = []
    for i in range(len(truth_N)):
        kept = truth_N != truth_N[i] if whole_label else np.arange(len(truth_N)) != i
        rows, offsets = _naive_rows(text_CD, image_ND[kept], truth_N[kept], weight)
        right.append(int((rows @ image_ND[i] + offsets).argmax()) == truth_N[i])
    return float(np.mean(right))


_counts = st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any)


@given(n_C=_counts, seed=st.integers(0, 2**16), weight=st.sampled_from(WEIGHTS), dim=st.sampled_from([2, 5, 12]))
def test_leaving_one_out_is_making_rows_without_it(n_C: list[int], seed: int, weight: float, dim: int) -> None:
    text_CD, image_ND, truth_N = _pose(n_C, dim, seed=seed)
    text, image = text_CD.astype(float), image_ND.astype(float)
    found = blend_examples(text_CD, image_ND, truth_N, scale=20.0, weights=(weight,))
    assert found.weight == weight
    assert found.accuracy_before == _naive_share(text, image, truth_N, 0.0)
    assert found.accuracy_after == _naive_share(text, image, truth_N, weight)
    if all(n_C):
        assert found.hidden_before is found.hidden_after is None
    else:
        assert found.hidden_before == _naive_share(text, image, truth_N, 0.0, whole_label=True)
        assert found.hidden_after == _naive_share(text, image, truth_N, weight, whole_label=True)


@given(n_C=_counts, seed=st.integers(0, 2**16), weight=st.sampled_from(WEIGHTS))
def test_rows_are_the_definition(n_C: list[int], seed: int, weight: float) -> None:
    text_CD, image_ND, truth_N = _pose(n_C, seed=seed)
    found = blend_examples(text_CD, image_ND, truth_N, scale=20.0, weights=(weight,))
    rows, offsets = _naive_rows(text_CD.astype(float), image_ND.astype(float), truth_N, weight)
    assert found.matrix_CD.dtype == found.offset_C.dtype == np.float32
    np.testing.assert_allclose(found.matrix_CD, rows, atol=1e-6)
    np.testing.assert_allclose(found.offset_C, 20 * offsets, atol=2e-5)
    np.testing.assert_array_equal(found.n_by_label_C, n_C)
    without_C = np.asarray(n_C) == 0
    np.testing.assert_array_equal(found.matrix_CD[without_C], text_CD[without_C])
    assert (found.offset_C[without_C] == 0).all()


@given(n_C=_counts, seed=st.integers(0, 2**16), weight=st.sampled_from(WEIGHTS), dim=st.sampled_from([2, 5, 12]))
@example(n_C=[2, 1, 1], seed=0, weight=1.0, dim=5)  # without one of the two there is no spread
def test_logits_left_out_are_those_of_rows_made_without(n_C: list[int], seed: int, weight: float, dim: int) -> None:
    text_CD, image_ND, truth_N = _pose(n_C, dim, seed=seed)
    text, image = text_CD.astype(float), image_ND.astype(float)
    for chunk, parts in leave_one_out(text, image, truth_N):
        for i, found_C in zip(range(*chunk.indices(len(truth_N))), parts.logits(weight), strict=True):
            kept = np.arange(len(truth_N)) != i
            rows, offsets = _naive_rows(text, image[kept], truth_N[kept], weight)
            np.testing.assert_allclose(found_C, rows @ image[i] + offsets, atol=1e-5)


def test_the_weight_is_the_smallest_of_the_best() -> None:
    """And none where the gain is chance; labels without examples have their say."""
    weights, differing = set(), 0
    for seed in range(40):
        n_C = [[3, 5, 2, 4], [3, 3, 3, 0, 0, 0]][seed % 2]
        text_CD, image_ND, truth_N = _pose(n_C, text=1.0, seed=seed)
        found = blend_examples(text_CD, image_ND, truth_N, scale=20.0)
        forced = [blend_examples(text_CD, image_ND, truth_N, scale=20.0, weights=(weight,)) for weight in WEIGHTS]
        share = n_C.count(0) / len(n_C)
        seen = [round(one.accuracy_after, 9) for one in forced]
        both = [round((1 - share) * one.accuracy_after + share * (one.hidden_after or 0), 9) for one in forced]
        best = WEIGHTS[both.index(max(both))] if (max(both) - both[0]) * len(truth_N) > 1.99 else 0.0
        assert found.weight == best
        weights.add(best)
        differing += seen.index(max(seen)) != both.index(max(both))
    assert len(weights) > 2
    assert differing


@given(seed=st.integers(0, 2**16), weight=st.sampled_from(WEIGHTS))
def test_the_mean_picture_keeps_its_logits(seed: int, weight: float) -> None:
    text_CD, image_ND, truth_N = _pose([3, 0, 2, 4], seed=seed)
    found = blend_examples(text_CD, image_ND, truth_N, scale=20.0, weights=(weight,))
    mean_D = np.mean([image_ND[truth_N == label].mean(axis=0) for label in (0, 2, 3)], axis=0)
    after_C = 20 * found.matrix_CD @ mean_D + found.offset_C
    np.testing.assert_allclose(after_C, 20 * text_CD @ mean_D, atol=1e-4)


@given(seed=st.integers(0, 2**16))
def test_permuting_labels_permutes_rows(seed: int) -> None:
    text_CD, image_ND, truth_N = _pose([3, 1, 0, 4, 2], seed=seed)
    order_C = np.random.default_rng(seed).permutation(5)
    place_C = np.argsort(order_C)
    found = blend_examples(text_CD, image_ND, truth_N, scale=20.0, weights=(1.0,))
    moved = blend_examples(text_CD[order_C], image_ND, place_C[truth_N], scale=20.0, weights=(1.0,))
    np.testing.assert_allclose(moved.matrix_CD, found.matrix_CD[order_C], atol=1e-6)
    np.testing.assert_allclose(moved.offset_C, found.offset_C[order_C], atol=1e-5)


def test_without_text_it_answers_as_a_linear_discriminant_does() -> None:
    """At a large weight and with many examples, rows point where those of the Gaussian classifier point."""
    text_CD, image_ND, truth_N = _pose([400] * 4, 6, noise=0.3)
    found = blend_examples(text_CD, image_ND, truth_N, scale=1.0, weights=(1e6,))
    reference = LinearDiscriminantAnalysis(solver="lsqr").fit(image_ND, truth_N)
    theirs_CD = reference.coef_ - reference.coef_.mean(axis=0)
    cosine_C = (_unit(found.matrix_CD) * _unit(theirs_CD)).sum(axis=1)
    assert cosine_C.min() > 0.999


def test_examples_mend_labels_whose_words_mean_nothing() -> None:
    text_CD, image_ND, truth_N = _pose([40] * 8, 24, text=0.0)
    few_N = np.concatenate([np.flatnonzero(truth_N == label)[:6] for label in range(8)])
    rest_N = np.setdiff1d(np.arange(len(truth_N)), few_N)
    found = blend_examples(text_CD, image_ND[few_N], truth_N[few_N], scale=20.0)
    logit_NC = 20 * image_ND[rest_N] @ found.matrix_CD.T + found.offset_C
    accuracy = (logit_NC.argmax(axis=1) == truth_N[rest_N]).mean()
    before = ((image_ND[rest_N] @ text_CD.T).argmax(axis=1) == truth_N[rest_N]).mean()
    assert before < 0.3
    assert accuracy > 0.8
    assert abs(found.accuracy_after - accuracy) < 0.15  # what it promised


def test_many_rows_are_cut_into_pieces() -> None:
    text_CD, image_ND, truth_N = _pose([5, 3, 1, 4])
    whole = blend_examples(text_CD, image_ND, truth_N, scale=20.0)
    pieces = blend_examples(text_CD, image_ND, truth_N, scale=20.0, cells_at_once=30)
    assert (pieces.weight, pieces.accuracy_after) == (whole.weight, whole.accuracy_after)


def test_one_picture_many_times_is_no_spread() -> None:
    text_CD, image_ND, truth_N = _pose([1, 1, 1])
    thrice = blend_examples(text_CD, np.repeat(image_ND, 3, axis=0), np.repeat(truth_N, 3), scale=20.0, weights=(1.0,))
    once = blend_examples(text_CD, image_ND, truth_N, scale=20.0, weights=(1.0,))
    np.testing.assert_allclose(thrice.matrix_CD, once.matrix_CD, atol=1e-6)


@pytest.mark.parametrize("truth", [[], [4], [-1]])
def test_no_example_and_no_such_label_are_refused(truth: list[int]) -> None:
    text_CD, image_ND, _ = _pose([1, 1, 1, 1])
    with pytest.raises(SpecError):
        blend_examples(text_CD, image_ND[: len(truth)], np.array(truth, np.int64), scale=20.0)
