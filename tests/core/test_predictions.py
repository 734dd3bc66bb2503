import numpy as np
import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.embedding import Embeddings
from zsic.core.predictions import Answers
from zsic.core.schema import AnswerColumns, output_schema
from zsic.core.scoring import TopK
from zsic.core.verdict import NONE, Fits, Verdict

LABELS = ["cat", "dog", "bird", "fish"]


@given(answered=st.lists(st.booleans(), max_size=12), k=st.integers(1, 4), seed=st.integers(0, 99))
def test_columns_hold_what_was_entered_and_nothing_else(answered: list[bool], k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, rows = len(answered), np.flatnonzero(answered)
    label = np.array([rng.permutation(4)[:k] for _ in rows], np.int32).reshape(-1, k)
    score = rng.random((len(rows), k), np.float32)
    similarity = rng.random((len(rows), k), np.float32)
    image = rng.random((len(rows), 3), np.float32)
    answers, embeddings = Answers(LABELS, LABELS, n, k), Embeddings(n, 3)
    half = len(rows) // 2
    for part in (slice(0, half), slice(half, None)):
        top = TopK(*(torch.from_numpy(each[part]) for each in (label, score, similarity)))
        answers.enter(rows[part], Verdict(top, top.label_index_BK[:, 0], top.score_BK[:, 0]))
        embeddings.enter(rows[part], image[part])

    columns = answers.to_arrays() | {"embedding": embeddings.to_array()}
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


def make_verdict(answers: list[int], fits: list[tuple[int, int]] | None = None) -> Verdict:
    n = len(answers)
    top = TopK(torch.zeros((n, 1), dtype=torch.int32), torch.full((n, 1), 0.25), torch.ones((n, 1)))
    pairs = (
        None if fits is None else Fits(*(torch.tensor([pair[i] for pair in fits], dtype=torch.int64) for i in (0, 1)))
    )
    return Verdict(top, torch.tensor(answers, dtype=torch.int32), torch.arange(n) / 4, pairs)


def test_a_rejected_row_has_predictions_and_no_label() -> None:
    answers = Answers(LABELS, LABELS, 3, 1)
    answers.enter(np.array([0, 2]), make_verdict([NONE, 1]))
    rows = pa.table(answers.to_arrays()).to_pylist()
    assert [row["label"] for row in rows] == [None, None, "dog"]
    assert [row["score"] for row in rows] == [None, None, 0.25]
    assert [row["predictions"] is None for row in rows] == [False, True, False]


def test_labels_that_fit_come_in_order_whatever_order_the_batches_had() -> None:
    answers = Answers(LABELS, LABELS, 4, 1, AnswerColumns(has_labels=True))
    answers.enter(np.array([2, 3]), make_verdict([3, NONE], [(0, 3), (0, 1)]))
    answers.enter(np.array([0, 1]), make_verdict([2, 0], [(0, 2), (1, 0), (1, 3)]))
    answers.withdraw(np.array([0]))
    columns = answers.to_arrays()
    assert columns["labels"].to_pylist() == [None, ["cat", "fish"], ["fish", "dog"], []]
    assert columns["labels"].type == output_schema(answers=[answers.columns]).field("labels").type
    columns["labels"].validate(full=True)


def test_no_row_that_is_answered_has_no_labels_that_fit() -> None:
    answers = Answers(LABELS, LABELS, 2, 1, AnswerColumns(has_labels=True))
    assert answers.to_arrays()["labels"].to_pylist() == [None, None]


def test_of_several_sets_each_has_columns_of_its_name() -> None:
    columns = AnswerColumns("colours", has_path=True)
    names, paths = ["cat", "dog", "pet"], [("pet", "cat"), ("pet", "dog"), ("pet",)]
    answers = Answers(names[:2], names, 2, 1, columns, paths)
    answers.enter(np.array([0, 1]), make_verdict([2, 1]))
    arrays = answers.to_arrays()
    assert list(arrays) == [field.name for field in columns.fields()]
    assert list(arrays) == ["label_colours", "score_colours", "predictions_colours", "path_colours"]
    assert arrays["label_colours"].to_pylist() == ["pet", "dog"]
    assert arrays["path_colours"].to_pylist() == [["pet"], ["pet", "dog"]]
    schema = output_schema(answers=[AnswerColumns("kind"), columns])
    assert [schema.field(name).type for name in arrays] == [array.type for array in arrays.values()]
