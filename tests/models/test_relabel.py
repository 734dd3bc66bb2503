import numpy as np
import pyarrow as pa
import pytest
import torch

from zsic.core.embedding import from_column, to_column
from zsic.core.schema import output_schema
from zsic.models.head import Head
from zsic.models.heads import Heads
from zsic.models.relabel import relabel


def _head(n_labels: int, dim: int, seed: int = 0) -> Head:
    matrix_CD = torch.randn(n_labels, dim, generator=torch.Generator().manual_seed(seed))
    names = tuple(f"label {number}" for number in range(n_labels))
    unit_CD = torch.nn.functional.normalize(matrix_CD, dim=1)
    return Head(names, unit_CD, 20.0, 0.0, "softmax", ((),) * n_labels, "digest")


def _block(image_ND: np.ndarray, valid_N: np.ndarray, head: Head, top_k: int) -> pa.Table:
    """Rows as the encoder makes them of these vectors."""
    n, dim = image_ND.shape
    (answers,) = Heads((head,), (top_k,)).begin(n)
    rows_B = np.flatnonzero(valid_N)
    answers.enter(rows_B, head.judge(torch.from_numpy(image_ND[rows_B].astype("f4")), top_k))
    columns = answers.to_arrays() | {
        "embedding": to_column(image_ND, valid_N),
        "id": pa.array(range(n), pa.int64()),
        "uri": pa.array(["s"] * n),
        "key": pa.array([str(at) for at in range(n)]),
        "outcome": pa.array(np.where(valid_N, "ok", "corrupt").tolist()),
        "detail": pa.nulls(n, pa.string()),
        "width": pa.nulls(n, pa.int32()),
        "height": pa.nulls(n, pa.int32()),
    }
    schema = output_schema(embedding_dim=dim)
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _vectors(n: int, dim: int, seed: int = 1) -> np.ndarray:
    rows_ND = np.random.default_rng(seed).standard_normal((n, dim)).astype("f4")
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype("f2")


@pytest.mark.parametrize("pieces", [(50,), (7, 30, 13)])
def test_rows_are_those_of_classifying_anew(pieces: tuple[int, ...]) -> None:
    valid_N = np.random.default_rng(2).random(50) > 0.2
    image_ND, first, second = _vectors(50, 24), _head(6, 24), _head(9, 24, seed=5)
    block, expected = (_block(image_ND, valid_N, head, 4) for head in (first, second))
    starts = np.cumsum((0, *pieces[:-1])).tolist()
    block = pa.concat_tables([block.slice(at, n) for at, n in zip(starts, pieces, strict=True)])
    found = relabel(block, Heads((second,), (4,)), rows_at_once=16)
    assert set(found) == {"label", "score", "predictions"}
    for name, column in found.items():
        assert column.type == expected.schema.field(name).type
    assert found["label"] == expected["label"].combine_chunks()
    ours, theirs = found["predictions"].to_pylist(), expected["predictions"].to_pylist()
    for our, their in zip(ours, theirs, strict=True):
        assert (our is None) == (their is None)
        for one, other in zip(our or (), their or (), strict=True):
            assert one["label"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-6)


def test_no_row_and_no_answer() -> None:
    head = _head(3, 8)
    block = _block(_vectors(4, 8), np.zeros(4, bool), head, 2)
    heads = Heads((head,), (2,))
    assert relabel(block, heads)["predictions"].to_pylist() == [None] * 4
    assert len(relabel(block.slice(0, 0), heads)["predictions"]) == 0


def test_a_slice_of_the_column_gives_its_own_rows() -> None:
    image_ND = _vectors(10, 6)
    column = to_column(image_ND, np.ones(10, bool))
    assert np.array_equal(from_column(column.slice(3, 4)), image_ND[3:7])
