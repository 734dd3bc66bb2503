"""What the images really show, and which row of an output each answer belongs to.

An *answer* of a truth is what it says of one image: one label as it is written, or several.

Shape legend: B rows of one batch, A distinct answers.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.errors import SpecError
from zsic.core.wording import normalise
from zsic.evaluate.files import Filesystem
from zsic.evaluate.truth_table import Answer, read_truth_table

FOLDER = "folder"
COLUMN_PREFIX = "column:"

UNTOLD = -1
"""In place of an answer, where the truth says nothing."""
NOTHING = -2
"""In place of an answer, where the truth says that none is true: an empty list."""

_ENDING = re.compile(r"\.[A-Za-z0-9]+$")
"""The `.jpg#2` of a repeated member is none, or its stem would be that of the first."""
_FOLDER_NAME = r"(?s)^(?:.*/)?(?P<name>[^/]+)/+[^/]+$"

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Match:
    """The truth of one batch of the output."""

    code_B: Codes
    """Place of each row's answer among the truth's; below 0 are `UNTOLD` and `NOTHING`."""
    rules: Counter[str]
    """How many rows met their truth by which rule."""
    keys_B: Codes
    """Which of the truth's keys each row met; -1 where none, and where the truth has no keys."""
    sought: str
    """What was looked up for the first row, for the message when no row meets a truth."""
    answers: Sequence[Answer]
    """Those of the truth."""

    @property
    def labels(self) -> pa.StringArray:
        """The label of each row that has one, as it is written; null where there are none or several."""
        label_A = pa.array([answer[0] if len(answer) == 1 else None for answer in self.answers], pa.string())
        return label_A.take(pa.array(self.code_B, mask=self.code_B < 0))


class Truth(Protocol):
    """Something that knows the labels of an output's rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the output that `match` reads."""

    @property
    def keys(self) -> Sequence[Hashable]:
        """The rows of the truth's table; none where the truth is no table."""

    @property
    def answers(self) -> Sequence[Answer]:
        """The distinct answers met so far; only ever appended to."""

    @property
    def several(self) -> bool:
        """Whether some image has several labels; known once `match` has met a row that has a truth."""

    @property
    def lists(self) -> bool:
        """Whether answers are lists, if only of one label each; known as `several` is."""

    def match(self, batch: pa.RecordBatch) -> Match:
        """Look up the rows of a batch."""


@dataclass(slots=True)
class FolderTruth:
    """The label is the folder that the image lies in: by its key where it has one, else by its uri."""

    columns: tuple[str, ...] = ("uri", "key")
    keys: tuple[Hashable, ...] = ()
    several: bool = False
    lists: bool = False
    answers: list[Answer] = field(default_factory=list)
    _codes: dict[str, int] = field(default_factory=dict)

    def match(self, batch: pa.RecordBatch) -> Match:
        """Take the name of the last folder; an image at the top of a shard has none."""
        paths = pc.coalesce(batch["key"], batch["uri"])
        folders = pc.extract_regex(paths, _FOLDER_NAME).field("name").dictionary_encode()
        return _match(folders, self._code, "folder", paths, self.answers)

    def _code(self, folder: str) -> int:
        name = normalise(folder)
        if not name:
            return -1
        if name not in self._codes:
            self._codes[name] = len(self.answers)
            self.answers.append((name,))
        return self._codes[name]


@dataclass(slots=True)
class ColumnTruth:
    """The label stands in a column that the output kept from its source, or a list of labels, as JSON.

    Whether it is lists is seen by the first text.
    """

    column: str
    keys: tuple[Hashable, ...] = ()
    answers: list[Answer] = field(default_factory=list)
    _several: bool | None = None
    _codes: dict[str, int] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    @property
    def several(self) -> bool:
        """Whether the column holds lists."""
        return bool(self._several)

    @property
    def lists(self) -> bool:
        """The same."""
        return self.several

    def match(self, batch: pa.RecordBatch) -> Match:
        """Take the column as it is; an empty text says nothing."""
        kind = batch[self.column].type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            raise SpecError(f"truth: the column {self.column!r} is of type {kind}, and labels are texts")
        texts = batch[self.column].cast(pa.string())
        return _match(texts.dictionary_encode(), self._code, f"column {self.column}", texts, self.answers)

    def _code(self, text: str) -> int:
        if text in self._codes:
            return self._codes[text]
        if self._several is None and text.strip():
            self._several = _as_list(text) is not None
        listed = _as_list(text) if self._several else None
        answer = tuple(dict.fromkeys(filter(None, map(normalise, [text] if listed is None else listed))))
        self._codes[text] = len(self.answers) if answer else UNTOLD if listed is None else NOTHING
        if answer:
            self.answers.append(answer)
        return self._codes[text]


@dataclass(frozen=True, slots=True)
class TableTruth:
    """The labels stand in a table, found by its `uri` and `key`, or where it has neither by its `id`.

    Without a uri in the table, a loose image has the last part of its uri for a key.  A row that is not found
    is looked up again without the ending of its key: `cat/7.jpg` finds `cat/7`.
    """

    by: tuple[str, ...]
    index: dict[Hashable, int]
    """Place of each key; a tuple where several columns are joined on."""
    code_of_key: Codes
    """Which answer each key has."""
    answers: Sequence[Answer]
    several: bool
    lists: bool = False

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
        code_B = np.where(keys_B < 0, UNTOLD, self.code_of_key[keys_B])
        return Match(code_B, +rules, keys_B, show_key(sought[0]), self.answers)

    def _sought(self, batch: pa.RecordBatch) -> list[Hashable]:
        columns = [batch[name].to_pylist() for name in self.columns]
        if self.by != ("key",):
            return list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0]
        return [uri.rsplit("/", 1)[-1] if key is None else key for uri, key in zip(*columns, strict=True)]


def load_truth(truth: str, *, label_column: str = "label", filesystem: Filesystem | None = None) -> Truth:
    """Read where the labels of images are found.

    `folder` is the folder of each image, `column:NAME` a column of the output, anything else a CSV, Parquet
    or JSONL file with a column of labels and one or more of `id`, `uri` and `key`; rows without a label are
    left out.  An image has several labels where the column holds lists, or in CSV `;` between them, and none where
    a list is empty; a label
    that itself holds `;` needs another format than CSV.  Raises `SpecError` when a column is missing, or an
    image has two answers.
    """
    if truth == FOLDER:
        return FolderTruth()
    if truth.startswith(COLUMN_PREFIX):
        return ColumnTruth(truth.removeprefix(COLUMN_PREFIX))
    by, answer_of, lists = read_truth_table(truth, label_column, filesystem)
    if not any(answer_of.values()):
        raise SpecError(f"{truth}: no row has a label")
    codes: dict[Answer, int] = {}
    given = (codes.setdefault(answer, len(codes)) if answer else NOTHING for answer in answer_of.values())
    code_of_key = np.fromiter(given, np.int64, len(answer_of))
    # Of lists with one label each, the label of an image is one.
    several = any(len(answer) > 1 for answer in codes)
    return TableTruth(by, {key: i for i, key in enumerate(answer_of)}, code_of_key, tuple(codes), several, lists)


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


def _match(
    texts: pa.DictionaryArray,
    code: Callable[[str], int],
    rule: str,
    sought: pa.StringArray,
    answers: Sequence[Answer],
) -> Match:
    """Code each distinct text once."""
    code_W = np.array([*map(code, texts.dictionary.to_pylist()), -1], np.int64)
    code_B = code_W[pc.fill_null(texts.indices, len(code_W) - 1).to_numpy(zero_copy_only=False)]
    n_found = int((code_B >= 0).sum())
    return Match(code_B, +Counter({rule: n_found}), np.full(len(code_B), -1, np.int64), str(sought[0].as_py()), answers)


def _as_list(text: str) -> list[str] | None:
    """The texts of a JSON array, as a kept column of lists is written; None if it is none."""
    if not text.lstrip().startswith("["):
        return None
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return [str(value) for value in values if value is not None]
