"""Against numpy in float64: the same rows, in the same order, ties and all."""

from collections.abc import Iterator
from functools import partial
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.embedding import to_column
from zsic.search import ranking
from zsic.search.ranking import rank_parts


def unit(rows_ND: np.ndarray) -> np.ndarray:
    return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)


def part_of(ids_N: np.ndarray, image_ND: np.ndarray, valid_N: np.ndarray, step: int) -> list[pa.RecordBatch]:
    return [
        pa.record_batch(
            {
                "id": pa.array(ids_N[begin : begin + step]),
                "embedding": to_column(
                    np.ascontiguousarray(image_ND[begin : begin + step]), valid_N[begin : begin + step]
                ),
            }
        )
        for begin in range(0, len(ids_N), step)
    ]


def reference(
    ids_N: np.ndarray, image_ND: np.ndarray, valid_N: np.ndarray, query_D: np.ndarray, n: int
) -> list[tuple[int, float]]:
    exact_N = [sum(float(a) * float(b) for a, b in zip(row, query_D, strict=True)) for row in image_ND]
    rows = sorted((-exact, int(row_id)) for exact, row_id, valid in zip(exact_N, ids_N, valid_N, strict=True) if valid)
    return [(row_id, -exact) for exact, row_id in rows[:n]]


@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 30), st.integers(1, 3), st.integers(1, 4))
def test_it_is_what_float64_says(seed: int, n_rows: int, n: int, n_queries: int, n_parts: int) -> None:
    rng = np.random.default_rng(seed)
    dim = 8
    # Few distinct vectors, so that many rows are equally similar.
    distinct = unit(rng.standard_normal((max(1, n_rows // 4), dim))).astype("<f2")
    image_ND = distinct[rng.integers(0, len(distinct), n_rows)]
    ids_N = rng.permutation(10 * n_rows)[:n_rows].astype(np.int64)
    valid_N = rng.random(n_rows) < 0.9
    query_QD = unit(rng.standard_normal((n_queries, dim))).astype("f4")
    owner_N = rng.integers(0, n_parts, n_rows)
    parts = [
        part_of(ids_N[owner_N == p], image_ND[owner_N == p], valid_N[owner_N == p], int(rng.integers(1, 50)))
        for p in range(n_parts)
    ]

    def read(part: int) -> Iterator[pa.RecordBatch]:
        yield from parts[part]

    with patch.object(ranking, "ROWS_AT_ONCE", int(rng.integers(1, 40))):
        found = rank_parts([partial(read, part) for part in range(n_parts)], query_QD, n, n_threads=3)
    for best, query_D in zip(found, query_QD, strict=True):
        expected = reference(ids_N, image_ND, valid_N, query_D, n)
        assert best.ids_T.tolist() == [row_id for row_id, _ in expected]
        assert best.similarity_T == pytest.approx([exact for _, exact in expected], abs=1e-12)
        owners = dict(zip(ids_N.tolist(), owner_N.tolist(), strict=True))
        assert best.part_T.tolist() == [owners[row_id] for row_id, _ in expected]


def test_rows_that_float32_cannot_tell_apart_are_told_apart() -> None:
    # Their cosines differ by less than float32 has digits for at 1.
    query_D = np.zeros(64, "f4")
    query_D[:2] = 1, 2**-16
    image_ND = np.zeros((40, 64), "<f2")
    image_ND[:, 0] = 1
    image_ND[:, 1] = np.linspace(0, 2**-9, 40)
    float32_N = image_ND.astype("f4") @ query_D
    assert len(set(float32_N.tolist())) < 40
    order = np.random.default_rng(0).permutation(40)
    batch = part_of(np.arange(40), image_ND[order], np.ones(40, bool), 7)
    (best,) = rank_parts([lambda: iter(batch)], query_D[None], 10, n_threads=1)
    assert order[best.ids_T].tolist() == list(range(39, 29, -1))


def test_vectors_that_are_no_numbers_are_passed_over() -> None:
    image_ND = np.full((5, 4), np.nan, "<f2")
    image_ND[3] = (1, 0, 0, 0)
    batch = part_of(np.arange(5), image_ND, np.ones(5, bool), 5)
    (best,) = rank_parts([lambda: iter(batch)], np.array([[1, 0, 0, 0]], "f4"), 3, n_threads=1)
    assert best.ids_T.tolist() == [3]


def test_torch_has_its_threads_back_and_errors_come_through() -> None:
    before = torch.get_num_threads()

    def read() -> Iterator[pa.RecordBatch]:
        raise OSError("gone")
        yield

    with pytest.raises(OSError, match="gone"):
        rank_parts([read] * 5, np.eye(4, dtype="f4")[:1], 3, n_threads=2)
    assert torch.get_num_threads() == before
