"""What images are sorted into: labels, and the prompts that describe each of them to the text tower."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from zsic.core.errors import SpecError
from zsic.core.fingerprint import canonical
from zsic.core.label_file import Entry, LabelFile, read_label_file
from zsic.core.spec import LabelsSpec
from zsic.core.templates import render, resolve_templates, unify_placeholder
from zsic.core.wording import clean, clean_sentence

DEFAULT_TEMPLATES = ("simple",)


@dataclass(frozen=True, slots=True)
class Label:
    """One answer."""

    name: str
    """As it stands in the output."""
    prompts: tuple[str, ...] | None = None
    """Own sentences, used instead of the templates; `{}` in them stands for the name."""


@dataclass(frozen=True)
class LabelSet:
    """The labels of one question, in the order that settles ties.

    `load_labels` makes them, and sees to it that names are distinct and every label has a prompt.
    """

    labels: tuple[Label, ...]
    templates: tuple[str, ...]
    """Sentences with one `{}`; no names of sets any more."""

    @property
    def names(self) -> tuple[str, ...]:
        """The labels as they stand in the output."""
        return tuple(label.name for label in self.labels)

    def prompts(self) -> tuple[tuple[str, ...], ...]:
        """Render the prompts of each label, in label order; a prompt appears once in its label."""
        return tuple(
            tuple(dict.fromkeys(render(template, label.name) for template in label.prompts or self.templates))
            for label in self.labels
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names and rendered prompts in order: what was asked, however the file was written."""
        return hashlib.sha256(canonical({"names": self.names, "prompts": self.prompts()})).hexdigest()


def load_labels(spec: LabelsSpec) -> LabelSet:
    """Read the labels that a spec names, from its file or its list, in their order.

    Templates of the spec take precedence over the file's, and those over `simple`.  Raises `SpecError` that
    names the field, or the file, line and label.
    """
    if spec.path is not None and spec.names:
        raise SpecError("labels.path and labels.names are both given; use one of them")
    if spec.path is not None:
        file = read_label_file(spec.path)
        origin = spec.path
    else:
        file = LabelFile(tuple(Entry(f"labels.names.{i}", name) for i, name in enumerate(spec.names)))
        origin = "labels.names"
    labels = _collect(file.entries)
    if not labels:
        raise SpecError(f"{origin} holds no label; give at least one, such as `cat`, or the path of a label file")
    if spec.templates:
        return LabelSet(labels, resolve_templates(spec.templates))
    templates = file.templates or DEFAULT_TEMPLATES
    return LabelSet(labels, resolve_templates(templates, f"{file.templates_where}: templates"))


def _collect(entries: Iterable[Entry]) -> tuple[Label, ...]:
    places: dict[str, str] = {}
    labels = []
    for entry in entries:
        name = clean(entry.name, entry.where)
        if not name:
            raise SpecError(f"{entry.where}: the label is empty; name it or remove it")
        if name in places:
            raise SpecError(f"{entry.where}: label {name!r} is there already ({places[name]}); remove one of the two")
        places[name] = entry.where
        labels.append(Label(name, _own_prompts(entry, name)))
    return tuple(labels)


def _own_prompts(entry: Entry, name: str) -> tuple[str, ...] | None:
    if entry.prompts is None:
        return None
    where = f"{entry.where}: a prompt of label {name!r}"
    prompts = [unify_placeholder(clean_sentence(prompt, where)) for prompt in entry.prompts]
    if not all(prompts):
        raise SpecError(f"{where} is empty; write it or remove it")
    if not prompts:
        raise SpecError(f"{entry.where}: label {name!r} has an empty list of prompts; fill it or remove it")
    return tuple(dict.fromkeys(prompts))
