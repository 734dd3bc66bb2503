"""Why mistakes were made: where in a picture the answer was seen, and where its true label would have been.

The heat maps are those of `zsic predict --explain`, of the output's own model and prompts.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from zsic.core.decode import decode
from zsic.core.errors import ModelError, SpecError
from zsic.core.heat_map import draw_heat_map
from zsic.core.labels import Label, LabelSet
from zsic.core.spec import DecodeSpec, ModelSpec, StoreSpec
from zsic.core.terminal import printable
from zsic.models.checkpoint import resolve
from zsic.models.explain import Explainer
from zsic.models.head_cache import find_head
from zsic.report.answer_table import AnswerTable
from zsic.report.cards import Card
from zsic.report.survey import MISTAKE

MOST = 40
"""Mistakes that are explained: two maps each, about 20 kB each."""


@dataclass(frozen=True)
class Reasons:
    """Explains the mistakes among some cards; threads may share it."""

    explainer: Explainer
    decode: DecodeSpec
    ids: frozenset[int]
    """Of the rows that are explained."""
    lock: threading.Lock

    @classmethod
    def of(
        cls, table: AnswerTable, job: Mapping[str, Any], cards: Sequence[Card], decode: DecodeSpec, store: StoreSpec
    ) -> "Reasons":
        """Load the model of an output.

        Raises `SpecError` where its footers do not tell the prompts, and `ModelError` where the model is not to be
        had, is another, or has no patches.
        """
        prompts = table.prompts
        if table.labels is None or not prompts:
            raise SpecError(
                "--explain: the output does not tell its prompts (they are too many, or it is an older one)"
            )
        revision = table.told("revision")
        spec = ModelSpec(name=str(table.told("model")), revision=revision if isinstance(revision, str) else None)
        checkpoint = resolve(spec, store)
        wanted = str(job.get("model", {}).get("digest"))
        if checkpoint.digest != wanted:
            raise ModelError(f"--explain: {spec.name} has other weights now than those that gave the output's answers")
        labels = tuple(Label(name, tuple(each)) for name, each in zip(table.labels, prompts, strict=True))
        head = find_head(LabelSet(labels, ()), checkpoint)
        mistakes = [card.id for card in cards if MISTAKE in card.kinds]
        return cls(Explainer(spec, head, decode=decode), decode, frozenset(mistakes[:MOST]), threading.Lock())

    def draw(self, data: bytes, card: Card) -> tuple[tuple[str, Image.Image], ...]:
        """Captions and heat maps for the answer of a card, or its best label, and its true ones; none for others.

        Raises `DecodeError`.
        """
        if card.id not in self.ids:
            return ()
        best = card.label if card.label in self.explainer.labels else card.predictions[0].label
        wanted = dict.fromkeys([best, *(name for name in (card.truth or ())[:1] if name in self.explainer.labels)])
        picture = decode(data, self.decode)
        seen = self.explainer.geometry.seen(picture.height, picture.width)
        drawn = []
        for label in wanted:
            with self.lock:  # a backward pass at a time
                found = self.explainer.explain(data, label)
            title = f"{printable(label)}   {found.score:.3f}"
            drawn.append((label, draw_heat_map(picture, found.heat_HW, seen, title)))
        return tuple(drawn)
