"""How labels are written in `.txt`, `.csv`, `.json` and `.yaml` files, and where in them each one stands."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsic.core.document import Document, Items, Pairs, Scalar, Text, read_json, read_yaml
from zsic.core.errors import SpecError
from zsic.core.label_form import FIELDS_OF_A_SET, LabelForm, LabelSetForm, validate
from zsic.core.spec import LABEL_FILE_ENDINGS
from zsic.core.wording import normalise

LABEL_COLUMNS = ("label", "name", "class")
"""Headers that mark the column of labels; the first of these that a file has."""
NAME_FIELDS = ("name", "label")
"""Keys for the name of a label that is a mapping."""
SIGNS_OF_A_SET = ("labels", "templates", "mode", "reject", "back_off")
"""Keys that make a mapping a label set, and not labels with their prompts."""
PROMPT_FIELDS = ("prompt", "prompts")
"""Keys, and headers, for its own prompts."""

Step = str | int


@dataclass(frozen=True)
class LabelFile:
    """What a label file says, its names and sentences unchecked."""

    form: LabelSetForm
    places: Mapping[tuple[Step, ...], str]
    """File and line of what stands at a path of the form, such as `("labels", 3)`."""

    def where(self, *path: Step) -> str:
        """File and line of what stands at a path, or of the nearest thing around it; opens messages."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]


def name_labels(names: Sequence[str], field: str) -> LabelFile:
    """The label file that a list of names is."""
    form = LabelSetForm(labels=tuple(LabelForm(name=name) for name in names))
    return LabelFile(form, {(): field} | {("labels", i): f"{field}.{i}" for i in range(len(names))})


def read_label_file(path: str) -> LabelFile:
    """Read a label file of any kind, by its ending.  Raises `SpecError` that names file and line."""
    ending = Path(path).suffix.lower()
    if ending not in LABEL_FILE_ENDINGS:
        raise SpecError(f"labels.path: {path!r} is no label file by its ending; use {', '.join(LABEL_FILE_ENDINGS)}")
    text = _read_text(path)
    match ending:
        case ".txt":
            labels = Items(path, tuple(_named(where, name) for where, name in _read_lines(text, path)))
        case ".csv":
            labels = Items(path, tuple(_merge_rows(_read_rows(text, path))))
        case ".json":
            return _read_document(read_json(text, path), path)
        case _:
            document = read_yaml(text, path)
            if document is not None:
                return _read_document(document, path)
            labels = Items(path, ())
    return _read_document(labels, path)


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


def _read_lines(text: str, path: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        name = line.strip()
        if name and name != "#" and not line.startswith("# "):
            yield f"{path} line {number}", name


def _named(where: str, name: str, prompts: Sequence[str] = ()) -> Pairs:
    """A label as it would stand in YAML."""
    pairs: list[tuple[Document, Document]] = [(Text(where, "name"), Text(where, name))]
    if prompts:
        pairs.append((Text(where, "prompts"), Items(where, tuple(Text(where, prompt) for prompt in prompts))))
    return Pairs(where, tuple(pairs))


def _read_rows(text: str, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield place, label and prompt of each row of a CSV file; below a header, `;` and tabs separate as commas do."""
    try:
        header, separator = _find_header(text)
    except csv.Error as error:
        raise SpecError(f"{path} line 1: not CSV: {error}") from None
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
            yield where, cells[label_column], "" if prompt_column is None else cells[prompt_column].strip()
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


def _merge_rows(rows: Iterator[tuple[str, str, str]]) -> Iterator[Pairs]:
    """Join the rows of a label that each bring a prompt; other repetitions are left for a check to name."""
    merged: list[tuple[str, str, list[str]]] = []
    places: dict[str, int] = {}
    for where, name, prompt in rows:
        place = places.setdefault(normalise(name), len(merged))
        if place < len(merged) and prompt and merged[place][2]:
            merged[place][2].append(prompt)
        else:
            merged.append((where, name, [prompt] if prompt else []))
    return (_named(*row) for row in merged)


def _read_document(document: Document, path: str) -> LabelFile:
    """Read a label set in any of its forms."""
    found = _spell_out(document)
    made = validate(_to_plain(found))
    if not isinstance(made, LabelSetForm):
        raise _explain(found, made[0]["loc"], made[0])
    places = dict(_locate(found))
    # No line of a file is its whole.
    return LabelFile(made, places | {(): path})


def _spell_out(document: Document) -> Pairs:
    """Write a label set with all its short forms as the form knows it, each thing in its place."""
    keys = document.keys() if isinstance(document, Pairs) else set()
    match document:
        case Pairs() if found := [name for name in SIGNS_OF_A_SET if name in keys]:
            fields = document.fields("a label file", FIELDS_OF_A_SET)
            if "labels" not in fields:
                raise SpecError(f"{document.where}: labels is missing beside {found[0]}")
        case _:
            fields = {"labels": document}
    fields["labels"] = _spell_out_labels(fields["labels"])
    return Pairs(document.where, tuple((Text(value.where, name), value) for name, value in fields.items()))


def _spell_out_labels(document: Document) -> Items:
    match document:
        case Items(items=items):
            return Items(document.where, tuple(_spell_out_label(item) for item in items))
        case Pairs(pairs=pairs):
            return Items(document.where, tuple(_spell_out_named(key, value) for key, value in pairs))
        case _:
            raise SpecError(f"{document.where}: labels are a list, or a mapping from label to prompts, not one value")


def _spell_out_label(item: Document) -> Pairs:
    match item:
        case Pairs():
            fields = item.fields("a label", (*NAME_FIELDS, *PROMPT_FIELDS, *LabelForm.model_fields))
            names = [fields.pop(name) for name in NAME_FIELDS if name in fields]
            prompts = [fields.pop(name) for name in PROMPT_FIELDS if name in fields]
            if len(names) != 1 or len(prompts) > 1:
                raise SpecError(f"{item.where}: a label has one name, and one of prompt and prompts at most")
            return _label(item.where, names[0], fields | ({"prompts": prompts[0]} if prompts else {}))
        case _:
            return _named(item.where, item.text())


def _spell_out_named(key: Document, value: Document) -> Pairs:
    match value:
        case Pairs():
            allowed = [name for name in (*PROMPT_FIELDS, *LabelForm.model_fields) if name not in NAME_FIELDS]
            fields = value.fields(f"the label {key.text()!r}", tuple(dict.fromkeys(allowed)))
            if all(name in fields for name in PROMPT_FIELDS):
                raise SpecError(f"{value.where}: a label has one of prompt and prompts at most")
            if "prompt" in fields:
                fields["prompts"] = fields.pop("prompt")
            return _label(key.where, key, fields)
        case _:
            return _label(key.where, key, {"prompts": value})


def _label(where: str, name: Document, fields: Mapping[str, Document]) -> Pairs:
    spelled = {"name": name, **fields}
    if "children" in fields:
        spelled["children"] = _spell_out_labels(fields["children"])
    return Pairs(where, tuple((Text(value.where, key), value) for key, value in spelled.items()))


def _to_plain(document: Document) -> Any:
    """The value as plain Python; what a file takes for something else than text, list, mapping or number stays."""
    match document:
        case Text(value=value):
            return value
        case Items(items=items):
            return [_to_plain(item) for item in items]
        case Pairs():
            return {name: _to_plain(value) for name, value in document.by_key().items()}
        case Scalar(source=source, meaning=meaning) if meaning.startswith("a number"):
            try:
                return float(source)
            except ValueError:
                return document
        case _:
            return document


def _locate(document: Document, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], str]]:
    yield path, document.where
    match document:
        case Items(items=items):
            for i, item in enumerate(items):
                yield from _locate(item, (*path, i))
        case Pairs(pairs=pairs):
            for key, value in pairs:
                yield from _locate(value, (*path, key.text()))


def _explain(root: Document, path: Sequence[Step], fault: Any) -> SpecError:
    """Say what is wrong with what stands at a path, and of which label."""
    document, owner, field = root, "", ""
    for step in path:
        match document:
            case Items(items=items) if isinstance(step, int) and step < len(items):
                document = items[step]
            case Pairs(pairs=pairs):
                values = {key.text(): value for key, value in pairs}
                # A step may be one of pydantic's own, such as the branch of a union, or a field that is not there.
                field = str(step) if step in values else field
                document = values.get(str(step), document)
            case _:
                continue
        match document:
            case Pairs(pairs=((Text(value="name"), Text(value=name)), *_)):
                owner = f" of label {name!r}"
    match fault["type"]:
        case "string_type" | "tuple_type" | "dict_type":
            try:
                _ = document.text() if fault["type"] == "string_type" else document.texts()
            except SpecError as error:
                return error
            return SpecError(f"{document.where}: {field}{owner} is not what it should be: {fault['msg'].lower()}")
        case "extra_forbidden":
            whose = path[-2] if len(path) > 1 else "a label set"
            return SpecError(f"{document.where}: {path[-1]!r} is not a field of {whose}")
        case _:
            message = f"{fault['msg'][0].lower()}{fault['msg'][1:]}"
            got = document.source if isinstance(document, Scalar) else _to_plain(document)
            return SpecError(f"{document.where}: {field}{owner}: {message}; got {got!r}")
