"""Where each value of a YAML or JSON file stands, and how it was written there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from zsic.core.errors import SpecError

_MAX_DEPTH = 64
"""Two for each level of a tree of labels; ends an alias that contains itself."""
MAX_NODES = 5_000_000
"""Ends aliases that each repeat others."""

_YAML_KINDS = {
    "bool": "a truth value in YAML",
    "int": "a number in YAML",
    "float": "a number in YAML",
    "null": "nothing in YAML",
    "timestamp": "a date in YAML",
}

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """One value of a file, whatever it is."""

    where: str
    """File and line, or file and path within it; opens the messages about this value."""

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return "something else"

    def text(self) -> str:
        """Give the text that stands here.  Raises `SpecError` when it is something else."""
        raise SpecError(f"{self.where}: expected a text, got {self.kind}")

    def texts(self) -> tuple[str, ...]:
        """Give the texts of a list; one text is a list of one.  Raises `SpecError` for anything else."""
        return (self.text(),)


@dataclass(frozen=True, slots=True)
class Text(Document):
    """A text."""

    value: str

    def text(self) -> str:
        """Give the text that stands here."""
        return self.value


@dataclass(frozen=True, slots=True)
class Scalar(Document):
    """What the format takes for a number, a truth value, a date or nothing, perhaps against its intent."""

    source: str
    """As it stands in the file."""
    meaning: str
    """How the format takes it."""

    def text(self) -> str:
        """Raise `SpecError` that says how to make it a text."""
        raise SpecError(f"{self.where}: `{self.source}` is read as {self.meaning}; put it in quotes")


@dataclass(frozen=True, slots=True)
class Items(Document):
    """A list."""

    items: tuple[Document, ...]

    def texts(self) -> tuple[str, ...]:
        """Give the texts of the list.  Raises `SpecError` when one of them is something else."""
        return tuple(item.text() for item in self.items)

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return "a list"


@dataclass(frozen=True, slots=True)
class Pairs(Document):
    """A mapping, in the order of the file, with keys that may repeat."""

    pairs: tuple[tuple[Document, Document], ...]
    hint: str = ""
    """How it may have become a mapping by mistake; closes messages."""

    def keys(self) -> set[str]:
        """Give the keys that are texts."""
        return {key.value for key, _ in self.pairs if isinstance(key, Text)}

    def by_key(self) -> dict[str, Document]:
        """Give the values by key.  Raises `SpecError` for a key that is repeated, or no text."""
        found: dict[str, Document] = {}
        for key, value in self.pairs:
            name = key.text()
            if name in found:
                raise SpecError(f"{key.where}: {name} is there already; remove one of the two")
            found[name] = value
        return found

    def fields(self, owner: str, allowed: Sequence[str]) -> dict[str, Document]:
        """Give the values by key.  Raises `SpecError` for a key that is unknown to `owner` or repeated."""
        for key, _ in self.pairs:
            if key.text() not in allowed:
                raise SpecError(
                    f"{key.where}: {key.text()!r} is not a field of {owner}; the fields are "
                    f"{', '.join(allowed)}{self.hint}"
                )
        return self.by_key()

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return f"a mapping{self.hint}"


def read_yaml(text: str, path: str, *, max_nodes: int = MAX_NODES) -> Document | None:
    """Read YAML; None when there is nothing in it.  Raises `SpecError` that names the line."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecError(f"{path} line {line}: not YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"{path} line {line}: not YAML: {error.reason}") from None
    return None if root is None else _from_yaml(root, path, _MAX_DEPTH, _Budget(max_nodes))


def read_json(text: str, path: str) -> Document:
    """Read JSON.  Raises `SpecError` that names the line."""
    try:
        value = json.loads(text, object_pairs_hook=_JsonPairs)
    except json.JSONDecodeError as error:
        raise SpecError(f"{path} line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise SpecError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise SpecError(f"{path}: not JSON: {error}") from None  # a number of thousands of digits
    return _from_json(value, f"{path}: $", _MAX_DEPTH)


class _JsonPairs(tuple[tuple[str, Any], ...]):
    """A JSON object as its pairs, since a dict would drop the first of two equal keys."""

    __slots__ = ()


class _Budget:
    """How many values a document may hold."""

    def __init__(self, n_allowed: int) -> None:
        self._n_allowed, self._n_left = n_allowed, n_allowed

    def spend(self, where: str) -> None:
        """Count one more value.  Raises `SpecError` if that is one too many."""
        if not self._n_left:
            raise SpecError(f"{where}: with all its aliases it holds more than {self._n_allowed:,} values")
        self._n_left -= 1


def _from_yaml(node: yaml.Node, path: str, depth: int, budget: _Budget) -> Document:
    where = f"{path} line {node.start_mark.line + 1}"
    if depth == 0:
        raise SpecError(f"{where}: nested too deeply")
    budget.spend(where)

    def inner(child: yaml.Node) -> Document:
        return _from_yaml(child, path, depth - 1, budget)

    match node:
        case yaml.ScalarNode(tag="tag:yaml.org,2002:str") | yaml.ScalarNode(value=""):
            return Text(where, node.value)
        case yaml.SequenceNode():
            return Items(where, tuple(inner(item) for item in node.value))
        case yaml.MappingNode():
            pairs = tuple((inner(key), inner(value)) for key, value in node.value)
            return Pairs(where, pairs, "; a text that holds a colon needs quotes")
        case _:
            meaning = _YAML_KINDS.get(node.tag.rpartition(":")[2], f"{node.tag} in YAML")
            return Scalar(where, str(node.value), meaning)


def _from_json(value: Any, where: str, depth: int) -> Document:
    if depth == 0:
        raise SpecError(f"{where}: nested too deeply")
    match value:
        case str():
            return Text(where, value)
        case _JsonPairs():
            return Pairs(
                where,
                tuple(
                    (Text(f"{where}.{key}", key), _from_json(item, f"{where}.{key}", depth - 1)) for key, item in value
                ),
            )
        case list():
            return Items(
                where,
                tuple(_from_json(item, f"{where}[{i}]", depth - 1) for i, item in enumerate(value)),
            )
        case _:
            meaning = {bool: "a truth value", type(None): "nothing"}.get(type(value), "a number")
            return Scalar(where, json.dumps(value), f"{meaning} in JSON")
