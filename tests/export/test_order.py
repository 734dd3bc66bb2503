import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from zsic.export.order import SortedRows


def batch_of(ids: list[int]) -> pa.RecordBatch:
    places = [each % 7 for each in ids]
    return pa.record_batch({"place": pa.array(places, pa.int64()), "id": pa.array(ids, pa.int64())})


@given(st.lists(st.integers(0, 2**60), unique=True, max_size=200), st.integers(1, 20), st.integers(1, 7), st.data())
def test_rows_come_in_order_whatever_the_order_they_came_in(
    ids: list[int], run_rows: int, batch_rows: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, 30))
    with tempfile.TemporaryDirectory() as folder:
        rows = SortedRows(Path(folder), run_rows=run_rows, batch_rows=batch_rows)
        for start in range(0, len(ids), step):
            rows.add(batch_of(ids[start : start + step]))
        tables = list(rows.read())
        found = [row for table in tables for row in table.to_pylist()]
    assert found == [{"place": place, "id": each} for place, each in sorted((each % 7, each) for each in ids)]


def test_few_rows_are_held_while_runs_are_merged(tmp_path: Path) -> None:
    ids_N = np.random.default_rng(0).permutation(200_000)
    rows = SortedRows(tmp_path, run_rows=20_000, batch_rows=500)
    for part_N in np.array_split(ids_N, 50):
        rows.add(pa.record_batch({"place": pa.array(part_N), "id": pa.array(part_N)}))
    before = pa.total_allocated_bytes()
    last, n, most = -1, 0, 0
    for table in rows.read():
        found_N = table["id"].to_numpy()
        assert found_N[0] == last + 1
        assert (np.diff(found_N) == 1).all()
        last, n = int(found_N[-1]), n + len(found_N)
        most = max(most, table.num_rows)
        assert pa.total_allocated_bytes() - before < 2**20
    assert n == 200_000
    assert most <= 13 * 500
