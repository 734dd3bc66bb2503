"""How labels are written in `.txt`, `.csv`, `.json` and `.yaml` files, and where in them each one stands."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zsic.core.document import Document, Items, Pairs, read_json, read_yaml
from zsic.core.errors import SpecError
from zsic.core.spec import LABEL_FILE_ENDINGS
from zsic.core.wording import normalise

LABEL_COLUMNS = ("label", "name", "class")
"""Headers that mark the column of labels; the first of these that a file has."""
NAME_FIELDS = ("name", "label")
"""Keys for the name of a label that is a mapping."""
PROMPT_FIELDS = ("prompt", "prompts")
"""Keys, and headers, for its own prompts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One label as it was written, unchecked."""

    where: str
    """File and line, or field; opens the messages about this label."""
    name: str
    prompts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LabelFile:
    """What a label file says, unchecked."""

    entries: tuple[Entry, ...]
    templates: tuple[str, ...] = ()
    templates_where: str = ""


def read_label_file(path: str) -> LabelFile:
    """Read a label file of any kind, by its ending.  Raises `SpecError` that names file and line."""
    ending = Path(path).suffix.lower()
    if ending not in LABEL_FILE_ENDINGS:
        raise SpecError(f"labels.path: {path!r} is no label file by its ending; use {', '.join(LABEL_FILE_ENDINGS)}")
    text = _read_text(path)
    match ending:
        case ".txt":
            return LabelFile(tuple(_read_lines(text, path)))
        case ".csv":
            return LabelFile(tuple(_merge_rows(_read_rows(text, path))))
        case ".json":
            return _read_document(read_json(text, path))
        case _:
            document = read_yaml(text, path)
            return LabelFile(()) if document is None else _read_document(document)


def _read_text(path: str) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"labels.path: {path}: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{path} line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _read_lines(text: str, path: str) -> Iterator[Entry]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        name = line.strip()
        if name and not line.startswith("#"):
            yield Entry(f"{path} line {number}", name)


def _read_rows(text: str, path: str) -> Iterator[Entry]:
    """Yield an entry for each row of a CSV file; below a header, `;` and tabs may separate as commas do."""
    header, separator = _find_header(text)
    label_column = _find_column(header, LABEL_COLUMNS) or 0
    prompt_column = _find_column(header, PROMPT_FIELDS)
    n_columns = len(header) or 1
    in_header = bool(header)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for cells in reader:
            where, line = f"{path} line {line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if in_header:
                in_header = False
                continue
            if len(cells) > n_columns:
                raise SpecError(
                    f"{where}: {len(cells)} cells, expected {n_columns}; quote what holds a {separator!r}; "
                    "several columns need their names in the first line, such as `label,prompt`"
                )
            cells += [""] * (n_columns - len(cells))
            prompt = "" if prompt_column is None else cells[prompt_column].strip()
            yield Entry(where, cells[label_column], (prompt,) if prompt else None)
    except csv.Error as error:
        raise SpecError(f"{path} line {line}: not CSV: {error}") from None


def _find_header(text: str) -> tuple[list[str], str]:
    """Give the columns' names and the separator; no names when the first line is a label already."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    for separator in ",;\t":
        header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=separator), [])]
        if _find_column(header, LABEL_COLUMNS) is not None:
            return header, separator
    return [], ","


def _find_column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _merge_rows(rows: Iterator[Entry]) -> list[Entry]:
    """Join the rows of a label that each bring a prompt; other repetitions are left for a check to name."""
    merged: list[Entry] = []
    places: dict[str, int] = {}
    for row in rows:
        place = places.setdefault(normalise(row.name), len(merged))
        if place < len(merged) and row.prompts and (before := merged[place].prompts):
            merged[place] = replace(merged[place], prompts=before + row.prompts)
        else:
            merged.append(row)
    return merged


def _read_document(document: Document) -> LabelFile:
    match document:
        case Pairs() if {"labels", "templates"} & document.keys():
            fields = document.fields("a label file", ("labels", "templates"))
            if "labels" not in fields:
                raise SpecError(f"{document.where}: labels is missing beside templates")
            entries = _read_labels(fields["labels"])
            if "templates" not in fields:
                return LabelFile(entries)
            return LabelFile(entries, fields["templates"].texts(), fields["templates"].where)
        case _:
            return LabelFile(_read_labels(document))


def _read_labels(document: Document) -> tuple[Entry, ...]:
    match document:
        case Items(items=items):
            return tuple(_read_label(item) for item in items)
        case Pairs(pairs=pairs):
            return tuple(Entry(key.where, key.text(), value.texts()) for key, value in pairs)
        case _:
            raise SpecError(f"{document.where}: labels are a list, or a mapping from label to prompts, not one value")


def _read_label(item: Document) -> Entry:
    match item:
        case Pairs():
            fields = item.fields("a label", (*NAME_FIELDS, *PROMPT_FIELDS))
            names = [fields[name] for name in NAME_FIELDS if name in fields]
            prompts = [fields[name] for name in PROMPT_FIELDS if name in fields]
            if len(names) != 1 or len(prompts) > 1:
                raise SpecError(f"{item.where}: a label has one name, and one of prompt and prompts at most")
            return Entry(item.where, names[0].text(), prompts[0].texts() if prompts else None)
        case _:
            return Entry(item.where, item.text())
