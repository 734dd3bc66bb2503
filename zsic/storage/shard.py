"""Which members of a tar shard are samples, how they are called, and what a shard that breaks off gives."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NoReturn

from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import SourceSpec
from zsic.storage.access import ReadError
from zsic.storage.kinds import IMAGE_ENDINGS, SNIFF_BYTES, ending_of, sniff
from zsic.storage.manifest import to_json
from zsic.storage.objects import Objects
from zsic.storage.sample import End, Sample, Source
from zsic.storage.stream import DamageError, Stream
from zsic.storage.tar import BLOCK, Member, read_members

GZIP_ENDINGS = (".gz", ".tgz")
JSON = "json"
"""The column of `keep_columns` that stands for a shard's `.json` members."""
MAX_JSON_BYTES = 2**20
GROUP_BYTES = 64 * 2**20
"""Images that wait for the `.json` member of their group, and its copies; more go without."""


def read_shard(
    source: Source,
    objects: Objects,
    spec: SourceSpec,
    *,
    max_bytes: int,
    skip: Callable[[int], bool],
    group_bytes: int = GROUP_BYTES,
) -> Iterator[Sample | End]:
    """Give one sample an image of a tar shard, in the order of the archive, then the end.

    An image is a regular file with an image's ending, whatever its bytes, or whose bytes begin like one.
    Keys are full member names; a repeated one gets `#2`, `#3` ...  A shard that cannot be read (from some
    byte on) gives one sample without a key in place of the rest.
    """
    shard = _Shard(max_bytes, skip, group_bytes)
    try:
        with objects.open_stream(source.info) as raw:
            stream = raw.gunzip() if source.uri.lower().endswith(GZIP_ENDINGS) else raw
            yield from shard.read_groups(stream) if JSON in spec.keep_columns else shard.read(stream)
    except ReadError as error:
        failure = error.failure
    except DamageError as error:
        failure = Failure(Outcome.BAD_SHARD, str(error))
    else:
        if shard.n_samples:
            yield End(shard.n_samples)
            return
        failure = Failure(Outcome.EMPTY, "the shard holds no images")
    if not skip(shard.n_samples):
        yield Sample(shard.n_samples, None, None, failure)
    yield End(shard.n_samples + 1, failure)


class _Shard:
    """One reading of one shard."""

    def __init__(self, max_bytes: int, skip: Callable[[int], bool], group_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._skip = skip
        self._group_bytes = group_bytes
        self._uses: dict[str, int] = {}
        self.n_samples = 0
        """Images met so far, skipped ones included."""

    def read(self, stream: Stream) -> Iterator[Sample]:
        """Give each image as it comes."""
        for member in read_members(stream):
            sample = self._sample(member, stream)
            if sample is not None:
                yield sample

    def read_groups(self, stream: Stream) -> Iterator[Sample]:
        """Give each image with the `.json` member of its group: neighbours that share WebDataset's key.

        The images of a group wait until it ends, for the `.json` member may come last.
        """
        group = _Group("", self._group_bytes)
        try:
            for member in read_members(stream):
                stem, ending = split_key(member.name)
                if stem != group.stem:
                    yield from group.release()
                    group = _Group(stem, self._group_bytes)
                elif group.is_full:
                    yield from group.release()
                if ending == ".json" and member.size <= MAX_JSON_BYTES:
                    text = _take(stream, member.size).decode("utf-8", "replace")
                    group.kept = to_json({JSON: text})
                    continue
                n_before = self.n_samples
                sample = self._sample(member, stream)
                if self.n_samples > n_before:
                    group.hold(sample, min(member.size, self._max_bytes))
        except (DamageError, ReadError):
            yield from group.release()
            raise
        yield from group.release()

    def _sample(self, member: Member, stream: Stream) -> Sample | None:
        """Read a member; None if it is no image, or one to skip.  One that is cut short is not counted."""
        ending = ending_of(member.name)
        head = b""
        if ending not in IMAGE_ENDINGS:
            if ending == ".json" or member.sparse:
                return None
            head = _take(stream, min(SNIFF_BYTES, member.size))
            if not sniff(head):
                return None
        left = member.size - len(head)
        index = self.n_samples
        skipped = self._skip(index)
        data = None
        failure = None
        if member.sparse:
            failure = Failure(Outcome.UNSUPPORTED, "a sparse member of a tar")
        elif member.size > self._max_bytes:
            detail = f"{member.size} bytes are more than decode.max_bytes ({self._max_bytes})"
            failure = Failure(Outcome.TOO_LARGE, detail)
        if failure is None and not skipped:
            data = head + _take(stream, left) if head else _take(stream, left)
        else:
            _pass(stream, left)
        self.n_samples += 1
        key = self._key(member.name)
        return None if skipped else Sample(index, key, data, failure)

    def _key(self, name: str) -> str:
        """Name a sample; keys are distinct within a shard, even where a member is really called `x.jpg#2`."""
        n_uses = self._uses.get(name, 0) + 1
        key = name if n_uses == 1 else f"{name}#{n_uses}"
        while n_uses > 1 and key in self._uses:
            n_uses += 1
            key = f"{name}#{n_uses}"
        self._uses[name] = n_uses
        self._uses.setdefault(key, 1)
        return key


class _Group:
    """Images that wait for their group's `.json` member.

    Those to skip are counted like the others, so that what is skipped changes nothing else.
    """

    def __init__(self, stem: str, max_bytes: int) -> None:
        self.stem = stem
        self._max_bytes = max_bytes
        self.kept: str | None = None
        self._held: list[Sample | None] = []
        self._n_bytes = 0
        self._copied = 0

    @property
    def is_full(self) -> bool:
        """Whether no more images may wait."""
        return self._n_bytes > self._max_bytes

    def hold(self, sample: Sample | None, n_bytes: int) -> None:
        """Let an image wait; None is one to skip."""
        self._held.append(sample)
        self._n_bytes += n_bytes + BLOCK

    def release(self) -> Iterator[Sample]:
        """Give those that wait."""
        held, self._held, self._n_bytes = self._held, [], 0
        for sample in held:
            self._copied += len(self.kept or "")
            if sample is not None:
                within = self.kept is not None and self._copied <= self._max_bytes
                yield replace(sample, columns=self.kept) if within else sample


def _take(stream: Stream, n_bytes: int) -> bytes:
    data = stream.take(n_bytes)
    if len(data) < n_bytes:
        _break_off(stream)
    return data


def _pass(stream: Stream, n_bytes: int) -> None:
    if stream.skip(n_bytes) < n_bytes:
        _break_off(stream)


def _break_off(stream: Stream) -> NoReturn:
    raise DamageError(f"the archive ends at byte {stream.position}, within a member")


def split_key(name: str) -> tuple[str, str]:
    """Split a member name into WebDataset's key and the ending: at the first dot of the last step.

    >>> split_key("train/000.front.jpg")
    ('train/000', '.front.jpg')
    """
    dot = name.find(".", name.rfind("/") + 1)
    return (name, "") if dot < 0 else (name[:dot], name[dot:].lower())
