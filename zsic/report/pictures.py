"""The pictures of a few rows, read again from where the rows come from, and made small.

Each shard is read once, those with most of the rows first, until the time is up.  What cannot be had is a row without
a picture, and the reason; nothing here raises for what is wrong with a source.
"""

import base64
import io
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from PIL import Image

from zsic.core.decode import DecodeError
from zsic.core.errors import ZsicError
from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import DecodeSpec, StoreSpec
from zsic.core.thumbnail import make_thumbnail
from zsic.report.cards import Card
from zsic.storage.objects import Objects
from zsic.storage.originals import Originals
from zsic.storage.store import Store

if TYPE_CHECKING:
    from zsic.report.reasons import Reasons

SMALL_PX, LARGE_PX, MAP_PX = 192, 512, 420
"""Longest side: in the gallery, on click, and of a heat map."""
_READERS = 4
_LOOSE_AT_ONCE = 64
_TIMEOUT_S, _ATTEMPTS = 10.0, 2
"""Of a store: nobody waits minutes for a picture that the rest of the page does without."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is shown of one row."""

    small: str | None = None
    """A data URI; None where there is no picture."""
    large: str | None = None
    width: int = 0
    height: int = 0
    """Of the small one, pixels."""
    reason: str = ""
    """Why there is none."""
    maps: tuple[tuple[str, str], ...] = ()
    """Of a mistake, if it is explained: label, and a data URI of where that was seen."""


@dataclass
class _Album:
    """The pictures so far; several threads enter them."""

    decode: DecodeSpec
    large: frozenset[int]
    reasons: "Reasons | None"
    ends_at: float
    pictures: dict[int, Picture] = field(default_factory=dict)
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def is_late(self) -> bool:
        return self.is_over.is_set() or time.monotonic() > self.ends_at

    def enter(self, card: Card, answer: bytes | Failure) -> None:
        if isinstance(answer, Failure):
            self.pictures[card.id] = Picture(reason=f"{answer.outcome}: {answer.detail}")
            return
        try:
            picture = _draw(answer, card, self.decode, card.id in self.large)
            if self.reasons is not None:
                picture = replace(picture, maps=_draw_maps(self.reasons, answer, card))
            self.pictures[card.id] = picture
        except DecodeError as error:
            self.pictures[card.id] = Picture(reason=str(error))


def read_pictures(
    cards: Sequence[Card],
    store: Store,
    sources: StoreSpec,
    decode: DecodeSpec,
    *,
    large: frozenset[int] = frozenset(),
    reasons: "Reasons | None" = None,
    budget_s: float = 60.0,
) -> dict[int, Picture]:
    """Give the picture of each card of the output in `store`, by its id; those in `large` have a larger one, too.

    Failed rows have none; mistakes that `reasons` explain have heat maps beside them.  Takes `budget_s` seconds, and as
    long as one picture takes beyond.
    """
    pictures = {card.id: Picture(reason=card.detail or card.outcome) for card in cards if card.outcome != Outcome.OK}
    readable = [card for card in cards if card.outcome == Outcome.OK]
    album = _Album(decode, large, reasons, time.monotonic() + budget_s)
    patient = sources.model_copy(update={"timeout_s": _TIMEOUT_S, "attempts": _ATTEMPTS})
    groups = _grouped(readable)
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="picture")
    # Dealt out in turn, so that all begin with the shards that have most of the rows.
    piles = [pile for reader in range(_READERS) if (pile := groups[reader::_READERS])]
    wait([pool.submit(_read_pile, pile, store, patient, album) for pile in piles], timeout=budget_s)
    album.is_over.set()
    pool.shutdown(wait=False, cancel_futures=True)
    late = Picture(reason=f"not read: {budget_s:g} s were over")
    return pictures | {card.id: album.pictures.get(card.id, late) for card in readable}


def _grouped(cards: Sequence[Card]) -> list[list[Card]]:
    """Cards of one shard together, the shards with most of them first; loose images many at a time."""
    shards: dict[str, list[Card]] = {}
    loose: list[Card] = []
    for card in sorted(cards, key=lambda card: card.id):
        (loose if card.key is None else shards.setdefault(card.uri, [])).append(card)
    groups = [loose[begin : begin + _LOOSE_AT_ONCE] for begin in range(0, len(loose), _LOOSE_AT_ONCE)]
    return groups + sorted(shards.values(), key=len, reverse=True)


def _read_pile(pile: Sequence[Sequence[Card]], store: Store, sources: StoreSpec, album: _Album) -> None:
    """Read some shards, one after the other."""
    originals: Originals | None = None
    for cards in pile:
        try:
            # One for each reader: it holds a stretch of the plan.
            originals = originals or Originals(store, Objects(sources))
            for card, answer in originals.read(cards, stop=lambda: album.is_late):
                if album.is_late:
                    return
                album.enter(card, answer)
        except (ZsicError, ValueError) as error:
            for card in cards:
                album.pictures.setdefault(card.id, Picture(reason=str(error)))
        if album.is_late:
            return


def _draw(data: bytes, card: Card, decode: DecodeSpec, is_large: bool) -> Picture:
    small = make_thumbnail(data, decode, SMALL_PX)
    width, height = Image.open(io.BytesIO(small)).size
    large = None
    if is_large and max(card.width or 0, card.height or 0) > SMALL_PX:
        large = _to_uri(make_thumbnail(data, decode, LARGE_PX))
    return Picture(_to_uri(small), large, width, height)


def _draw_maps(reasons: "Reasons", data: bytes, card: Card) -> tuple[tuple[str, str], ...]:
    maps = []
    for label, picture in reasons.draw(data, card):
        picture.thumbnail((MAP_PX, MAP_PX))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        maps.append((label, _to_uri(buffer.getvalue())))
    return tuple(maps)


def _to_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
