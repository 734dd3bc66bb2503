"""The pictures of a few rows, read again from where the rows say they come from, and made small.

Each shard is read once, those with most of the rows first, until the time is up.  What cannot be had is a row without
a picture, and the reason; nothing here raises for what is wrong with a source.
"""

import base64
import io
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import chain

from PIL import Image

from zsic.core.decode import DecodeError, displayed_size, inspect, load
from zsic.core.errors import ZsicError
from zsic.core.outcome import Outcome
from zsic.core.spec import DecodeSpec, JobSpec, OutputSpec, SourceSpec, StoreSpec
from zsic.report.cards import Card
from zsic.storage.access import ReadError
from zsic.storage.kinds import Kind, shard_kind
from zsic.storage.objects import ObjectInfo, Objects
from zsic.storage.plan import read_plan
from zsic.storage.sample import Sample, Source
from zsic.storage.samples import read_samples
from zsic.storage.snapshot import last_snapshot
from zsic.storage.store import Store, open_store

SMALL_PX, LARGE_PX = 192, 512
"""Longest side: in the gallery, where it is shown at half that many CSS pixels or a little more; and on click."""
_QUALITY = 78
_SHARDS_AT_ONCE = 4
_LOOSE_AT_ONCE = 64
_TIMEOUT_S, _ATTEMPTS = 10.0, 2
_MOST_FOLLOWED = 10
"""Outputs with other labels may themselves be sources of such."""


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


@dataclass(frozen=True, slots=True)
class Origin:
    """How the images of an output are read."""

    source: SourceSpec
    store: StoreSpec
    decode: DecodeSpec

    @property
    def job(self) -> JobSpec:
        """The spec that readers take."""
        return JobSpec(
            source=self.source,
            store=self.store,
            decode=self.decode,
            labels=({"names": ("-",)},),  # type: ignore[arg-type]
            output=OutputSpec(uri="-"),
        )


def find_origin(store: Store, store_spec: StoreSpec, decode: DecodeSpec) -> Origin | None:
    """Find out how the output's images were read: by its last plan, or by that of the output it has its rows from."""
    patient = store_spec.model_copy(update={"timeout_s": _TIMEOUT_S, "attempts": _ATTEMPTS})
    for _ in range(_MOST_FOLLOWED):
        try:
            snapshot = last_snapshot(store)
            plan = read_plan(store, snapshot.sequence) if snapshot else None
            if plan is None:
                return None
            source = SourceSpec.model_validate(dict(plan.source))
            if source.format != "output":
                return Origin(source, patient, decode)
            store = open_store(source.uris[0].rstrip("/"), store_spec)
        except (ZsicError, ValueError):
            return None
    return None


@dataclass
class _Wanted:
    """The pictures so far; several threads enter them."""

    is_large: frozenset[int]
    ends_at: float
    pictures: dict[int, Picture] = field(default_factory=dict)
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def is_late(self) -> bool:
        return self.is_over.is_set() or time.monotonic() > self.ends_at


def read_pictures(
    cards: Sequence[Card], origin: Origin | None, *, large: frozenset[int] = frozenset(), budget_s: float = 60.0
) -> dict[int, Picture]:
    """Give the picture of each card, by its id; those in `large` have one to look at closely, too.

    Failed rows have none.  Raises nothing; it takes `budget_s` seconds, and as long as one picture takes beyond.
    """
    pictures = {card.id: Picture(reason=card.detail or card.outcome) for card in cards if card.outcome != Outcome.OK}
    readable = [card for card in cards if card.outcome == Outcome.OK]
    if origin is None:
        unknown = "the output does not tell how its images were read"
        return pictures | {card.id: Picture(reason=unknown) for card in readable}
    wanted = _Wanted(large, time.monotonic() + budget_s)
    pool = ThreadPoolExecutor(_SHARDS_AT_ONCE, thread_name_prefix="picture")
    futures: list[Future[None]] = [pool.submit(_read_group, group, origin, wanted) for group in _grouped(readable)]
    wait(futures, timeout=budget_s)
    wanted.is_over.set()
    pool.shutdown(wait=False, cancel_futures=True)
    late = Picture(reason=f"not read: {budget_s:g} s were over")
    return pictures | {card.id: wanted.pictures.get(card.id, late) for card in readable}


def _grouped(cards: Sequence[Card]) -> list[list[Card]]:
    """Cards of one shard together, the shards with most of them first; loose images many at a time."""
    shards: dict[str, list[Card]] = {}
    loose: list[Card] = []
    for card in cards:
        (loose if card.key is None else shards.setdefault(card.uri, [])).append(card)
    groups = [loose[begin : begin + _LOOSE_AT_ONCE] for begin in range(0, len(loose), _LOOSE_AT_ONCE)]
    return groups + sorted(shards.values(), key=len, reverse=True)


def _read_group(cards: Sequence[Card], origin: Origin, wanted: _Wanted) -> None:
    """Read one shard, or some loose images."""
    left: dict[str, list[Card]] = {}
    for card in cards:
        left.setdefault(card.key or card.uri, []).append(card)
    reason = "is not there any more"
    try:
        for name, found in _read_loose(cards, origin) if cards[0].key is None else _read_shard(cards, origin):
            for card in left.pop(name, ()):
                wanted.pictures[card.id] = (
                    _draw(found, card, origin.decode, card.id in wanted.is_large)
                    if isinstance(found, bytes)
                    else Picture(reason=found)
                )
            if wanted.is_late or not left:
                break
    except ReadError as error:
        reason = f"{error.failure.outcome}: {error.failure.detail}"
    except (ZsicError, OSError, ValueError) as error:
        reason = str(error)
    if not wanted.is_late:
        for card in chain.from_iterable(left.values()):
            wanted.pictures[card.id] = Picture(reason=reason)


def _read_loose(cards: Sequence[Card], origin: Origin) -> Iterator[tuple[str, bytes | str]]:
    objects = Objects(origin.store)
    infos = (ObjectInfo(card.uri, None) for card in cards)
    answers = objects.read_many(infos, max_bytes=origin.decode.max_bytes)
    for card, answer in zip(cards, answers, strict=True):
        yield card.uri, answer if isinstance(answer, bytes) else f"{answer.outcome}: {answer.detail}"


def _read_shard(cards: Sequence[Card], origin: Origin) -> Iterator[tuple[str, bytes | str]]:
    """Give name and bytes of the images of a shard; of a Parquet file, whose keys count rows, of those rows alone."""
    objects, uri = Objects(origin.store), cards[0].uri
    source = Source(uri, _kind(uri, origin.source), size=objects.stat(uri).size)
    numbers = {int(str(card.key)) for card in cards} if source.kind == "parquet" else None
    skip = (lambda index: index not in numbers) if numbers is not None else (lambda index: False)
    for sample in read_samples(source, objects, origin.job, skip=skip):
        if not isinstance(sample, Sample):
            return
        if sample.key is None and sample.failure is not None:
            raise ReadError(sample.failure)
        if sample.data is not None:
            yield str(sample.key), sample.data
        elif sample.failure is not None:
            yield str(sample.key), f"{sample.failure.outcome}: {sample.failure.detail}"


def _kind(uri: str, source: SourceSpec) -> Kind:
    if source.format in ("tar", "parquet"):
        return source.format
    return shard_kind(uri) or "tar"


def _draw(data: bytes, card: Card, spec: DecodeSpec, is_large: bool) -> Picture:
    try:
        image = inspect(data, spec)
        size = displayed_size(image, spec)
        if card.width is not None and size != (card.width, card.height):
            return Picture(reason=f"is another picture now: {size[0]} x {size[1]} pixels")
        # JPEG is decoded to a fraction of its size where that is enough; others take no notice.
        image.draft(None, (LARGE_PX, LARGE_PX))
        rgb = load(image, spec)
    except DecodeError as error:
        return Picture(reason=str(error))
    large = None
    if is_large and max(rgb.size) > SMALL_PX:
        rgb.thumbnail((LARGE_PX, LARGE_PX))
        large = _to_uri(rgb)
    rgb.thumbnail((SMALL_PX, SMALL_PX))
    return replace(Picture(_to_uri(rgb), large), width=rgb.width, height=rgb.height)


def _to_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
