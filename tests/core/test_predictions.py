import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.predictions import Answers
from zsic.core.schema import output_schema

LABELS = ["cat", "dog", "bird", "fish"]


@given(answered=st.lists(st.booleans(), max_size=12), k=st.integers(1, 4), seed=st.integers(0, 99))
def test_columns_hold_what_was_entered_and_nothing_else(answered: list[bool], k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, rows = len(answered), np.flatnonzero(answered)
    label = np.array([rng.permutation(4)[:k] for _ in rows], np.int32).reshape(-1, k)
    score = rng.random((len(rows), k), np.float32)
    similarity = rng.random((len(rows), k), np.float32)
    image = rng.random((len(rows), 3), np.float32)
    answers = Answers(LABELS, n, k, dim=3)
    half = len(rows) // 2
    for part in (slice(0, half), slice(half, None)):
        answers.enter(rows[part], label[part], score[part], similarity[part], image[part])

    columns = answers.columns()
    schema = output_schema(embedding_dim=3)
    for name, column in columns.items():
        assert column.type == schema.field(name).type
        column.validate(full=True)
    got = pa.table(columns).to_pylist()
    assert len(got) == n
    for row, is_answered in zip(got, answered, strict=True):
        assert all((value is not None) == is_answered for value in row.values())
    for position, row in enumerate(rows):
        assert got[row]["label"] == LABELS[label[position, 0]]
        assert got[row]["score"] == score[position, 0]
        assert got[row]["predictions"] == [
            {"label": LABELS[index], "score": one, "similarity": other}
            for index, one, other in zip(
                label[position], score[position].tolist(), similarity[position].tolist(), strict=True
            )
        ]
        assert got[row]["embedding"] == image[position].astype("<f2").tobytes()


def test_without_a_dimension_there_are_no_embeddings() -> None:
    assert set(Answers(LABELS, 2, 1).columns()) == {"label", "score", "predictions"}
