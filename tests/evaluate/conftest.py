from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zsic.core.schema import output_schema, with_metadata

WritePart = Callable[..., str]
MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture
def make_row() -> MakeRow:
    """Give the function that makes one row of an output."""
    return _make_row


def _make_row(uri: str, answers: Sequence[str] = (), **columns: Any) -> dict[str, Any]:
    """Make a row: `answers` are the predictions, best first; none makes it a failed image."""
    predictions = [{"label": label, "score": 1 / (rank + 2), "similarity": 0.1} for rank, label in enumerate(answers)]
    row = {
        "id": 0,
        "uri": uri,
        "key": None,
        "outcome": "ok" if answers else "corrupt",
        "detail": None,
        "width": 4,
        "height": 3,
        "label": answers[0] if answers else None,
        "score": 0.5 if answers else None,
        "predictions": predictions if answers else None,
    }
    return {**row, **columns}


@pytest.fixture
def write_part(tmp_path: Path) -> WritePart:
    """Write rows as a part of an output, as the job writes them."""

    def write(
        rows: Sequence[dict[str, Any]],
        name: str = "part.parquet",
        keep_columns: Sequence[str] = (),
        labels: Sequence[str] | None = None,
        row_group_size: int | None = None,
    ) -> str:
        schema = output_schema(keep_columns)
        if labels is not None:
            schema = with_metadata(schema, {"labels": list(labels)})
        path = tmp_path / name
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, path, compression="zstd", row_group_size=row_group_size)
        return str(path)

    return write
