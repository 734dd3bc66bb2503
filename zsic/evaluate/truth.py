"""What the images really show, and which row of an output each answer belongs to.

Shape legend: B rows of one batch.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.errors import SpecError
from zsic.core.wording import normalise
from zsic.evaluate.files import Filesystem
from zsic.evaluate.truth_table import read_truth_table

FOLDER = "folder"
COLUMN_PREFIX = "column:"

_ENDING = re.compile(r"\.[A-Za-z0-9]+$")
"""The `.jpg#2` of a repeated member is none, or its stem would be that of the first."""


@dataclass(frozen=True, slots=True)
class Match:
    """The truth of one batch of the output."""

    labels: pa.StringArray
    """Of each of the B rows; null where the truth says nothing."""
    rules: Counter[str]
    """How many rows met their truth by which rule."""
    keys_B: npt.NDArray[np.int64]
    """Which of the truth's keys each row met; -1 where none, and where the truth has no keys."""
    sought: str
    """What was looked up for the first row, for the message when no row meets a truth."""


class Truth(Protocol):
    """Something that knows the labels of an output's rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the output that `match` reads."""

    @property
    def keys(self) -> Sequence[Hashable]:
        """The rows of the truth's table; none where the truth is no table."""

    def match(self, batch: pa.RecordBatch) -> Match:
        """Look up the rows of a batch."""


@dataclass(frozen=True, slots=True)
class FolderTruth:
    """The label is the folder that the image lies in: by its key where it has one, else by its uri."""

    columns: tuple[str, ...] = ("uri", "key")
    keys: tuple[Hashable, ...] = ()

    def match(self, batch: pa.RecordBatch) -> Match:
        """Take the name of the last folder; an image at the top of a shard has none."""
        paths = pc.coalesce(batch["key"], batch["uri"]).to_pylist()
        folders = [normalise(PurePosixPath(path).parent.name) or None for path in paths]
        return _match_labels(folders, "folder", str(paths[0]))


@dataclass(frozen=True, slots=True)
class ColumnTruth:
    """The label stands in a column that the output kept from its source."""

    column: str
    keys: tuple[Hashable, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def match(self, batch: pa.RecordBatch) -> Match:
        """Take the column as it is; an empty text says nothing."""
        texts = batch[self.column].cast(pa.string()).to_pylist()
        labels = [normalise(text or "") or None for text in texts]
        return _match_labels(labels, f"column {self.column}", str(texts[0]))


@dataclass(frozen=True, slots=True)
class TableTruth:
    """The labels stand in a table, found by its `id`, or by its `uri` and `key`.

    Without a uri in the table, a loose image has the last part of its uri for a key.  A row that is not found
    is looked up again without the ending of its key: `cat/7.jpg` finds `cat/7`.
    """

    by: tuple[str, ...]
    index: dict[Hashable, int]
    """Place of each key; a tuple where several columns are joined on."""
    labels: pa.StringArray

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are looked up."""
        return ("uri", "key") if self.by == ("key",) else self.by

    @property
    def keys(self) -> Sequence[Hashable]:
        """What the table's rows are found by."""
        return tuple(self.index)

    def match(self, batch: pa.RecordBatch) -> Match:
        """Look up each row as it is, and then without its ending."""
        sought = self._sought(batch)
        rule = " and ".join(self.by)
        places = [self.index.get(key, -1) for key in sought]
        rules = Counter({rule: len(places) - places.count(-1)})
        if "key" in self.by:
            for row, key in enumerate(sought):
                if places[row] < 0:
                    places[row] = self.index.get(_drop_ending(key), -1)
            rules[f"{rule} without ending"] = len(places) - places.count(-1) - rules.total()
        keys_B = np.array(places, np.int64)
        labels = self.labels.take(pa.array(keys_B, mask=keys_B < 0))
        return Match(labels, +rules, keys_B, show_key(sought[0]))

    def _sought(self, batch: pa.RecordBatch) -> list[Hashable]:
        columns = [batch[name].to_pylist() for name in self.columns]
        if self.by != ("key",):
            return list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0]
        return [uri.rsplit("/", 1)[-1] if key is None else key for uri, key in zip(*columns, strict=True)]


def load_truth(truth: str, *, label_column: str = "label", filesystem: Filesystem | None = None) -> Truth:
    """Read where the labels of images are found.

    `folder` is the folder of each image, `column:NAME` a column of the output, anything else a CSV, Parquet
    or JSONL file with a column of labels and one or more of `id`, `uri` and `key`; rows without a label are
    left out.  Raises `SpecError` when a column is missing, or an image has two labels.
    """
    if truth == FOLDER:
        return FolderTruth()
    if truth.startswith(COLUMN_PREFIX):
        return ColumnTruth(truth.removeprefix(COLUMN_PREFIX))
    by, answers = read_truth_table(truth, label_column, filesystem)
    if not answers:
        raise SpecError(f"{truth}: no row has a label")
    return TableTruth(by, {key: i for i, key in enumerate(answers)}, pa.array(answers.values(), pa.string()))


def show_key(key: Hashable) -> str:
    """Write a key of a truth for a message."""
    return " ".join(str(part) for part in key) if isinstance(key, tuple) else str(key)


def _drop_ending(key: Hashable) -> Hashable:
    match key:
        case str():
            return _ENDING.sub("", key)
        case (uri, str(name)):
            return uri, _ENDING.sub("", name)
        case _:
            return key


def _match_labels(labels: Sequence[str | None], rule: str, sought: str) -> Match:
    n_found = len(labels) - labels.count(None)
    return Match(
        pa.array(labels, pa.string()),
        +Counter({rule: n_found}),
        np.full(len(labels), -1, np.int64),
        sought,
    )
