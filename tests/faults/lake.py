"""A source to classify, which knows what the table must say of each of its images."""

import io
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
from support.runs import LABELS, draw

from zsic.core.decode import DecodeError
from zsic.core.spec import DecodeSpec
from zsic.demo.breakage import broken_members
from zsic.models.classifier import Classifier

N_PICTURES = 96
MAX_PIXELS = 4_000_000
BAD_SHARD = "bad_shard"
TOLERANCE = 1e-4
"""Of a score, between a batch of one size and another."""


@dataclass(frozen=True)
class Truth:
    """What an image's row must say."""

    outcome: str
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """Pictures and broken files, drawn once in a process, with the answers of `zsic.Classifier`."""

    pictures: list[tuple[bytes, Truth]]
    broken: list[tuple[str, bytes, Truth]]


@cache
def pool() -> Pool:
    """Draw the pool; it is the same in each process."""
    classifier = Classifier("demo", LABELS, decode=DecodeSpec(max_pixels=MAX_PIXELS))
    pictures = [draw(number) for number in range(N_PICTURES)]
    answers = classifier.predict(pictures)
    broken = []
    for name, data in broken_members(6, Random(0)):
        try:
            classifier.predict(data)
        except DecodeError as error:
            broken.append((name, data, Truth(error.failure.outcome.value)))
        else:
            raise AssertionError(f"{name} is not broken")
    return Pool(
        [
            (data, Truth("ok", {answer["label"]: answer["score"] for answer in each}))
            for data, each in zip(pictures, answers, strict=True)
        ],
        broken,
    )


class Lake:
    """A folder of shards and a folder of loose images, some of them broken; it grows."""

    def __init__(self, folder: Path, rng: Random, *, n_shards: int, images_per_shard: int, n_loose: int) -> None:
        self.folder = folder
        self.truths: dict[tuple[str, str | None], Truth] = {}
        self.late: set[str] = set()
        """URIs of what came after the start."""
        self._rng = rng
        self._n_grown = 0
        (folder / "loose").mkdir(parents=True)
        for shard in range(n_shards):
            self._add_shard(f"s-{shard:03d}.tar", images_per_shard, cut=shard == n_shards // 2)
        for number in range(n_loose):
            self._add_loose(f"{number:04d}")
        for name, data, truth in pool().broken:
            self._put(folder / "loose" / name, data)
            self.truths[str(folder / "loose" / name), None] = truth

    @property
    def arguments(self) -> list[str]:
        """The source as the command line takes it."""
        return [f"{self.folder}/*.tar", f"{self.folder}/loose"]

    def grow(self) -> None:
        """Add a shard and a loose image, under names that sort before all others."""
        before = {uri for uri, _ in self.truths}
        self._n_grown += 1
        self._add_shard(f"late-{self._n_grown}.tar", self._rng.randint(20, 80))
        self._add_loose(f"-late-{self._n_grown}")
        self.late |= {uri for uri, _ in self.truths} - before

    def differences(self, table: pa.Table) -> list[str]:
        """What a table says that it must not; empty if it is exact."""
        found = []
        ids = Counter(table["id"].to_pylist())
        if doubled := [each for each, n in ids.items() if n > 1]:
            found.append(f"{len(doubled)} ids exist more than once, {doubled[0]} for one")
        rows = Counter(zip(table["uri"].to_pylist(), table["key"].to_pylist(), strict=True))
        for what, names in (
            ("are missing", Counter(self.truths.keys()) - rows),
            ("are too many", rows - Counter(self.truths.keys())),
        ):
            if names:
                found.append(f"{names.total()} rows {what}, {next(iter(names))} for one")
        wrong = [text for row in table.to_pylist() if (text := self._fault(row))]
        if wrong:
            found.append(f"{len(wrong)} rows say something else: {wrong[0]}")
        return found

    def _fault(self, row: dict[str, Any]) -> str:
        """What is wrong with one row; rows that should not be there are counted elsewhere."""
        truth = self.truths.get((row["uri"], row["key"]))
        if truth is None:
            return ""
        where = f"{row['uri']} {row['key']}"
        if row["outcome"] != truth.outcome:
            return f"{where}: {row['outcome']}, {truth.outcome} expected"
        if truth.outcome != "ok":
            return "" if row["label"] is None and row["predictions"] is None else f"{where}: broken, yet classified"
        best = sorted(truth.scores.values(), reverse=True)
        answers = row["predictions"]
        if len(answers) != 5 or (row["label"], row["score"]) != (answers[0]["label"], answers[0]["score"]):
            return f"{where}: {row['label']} does not go with {answers}"
        for answer, score in zip(answers, best, strict=False):
            if abs(answer["score"] - score) > TOLERANCE or abs(truth.scores[answer["label"]] - score) > TOLERANCE:
                return f"{where}: {answer}, {truth.scores} expected"
        return ""

    def _add_shard(self, name: str, n_images: int, *, cut: bool = False) -> None:
        path = self.folder / name
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(n_images):
                data, truth = self._rng.choice(pool().pictures)
                key: str | None = f"{index:05d}.jpg"
                if self._rng.random() < 0.01:
                    _, data, truth = self._rng.choice(pool().broken)
                entry = tarfile.TarInfo(f"{index:05d}.jpg")
                entry.size = len(data)
                begin = buffer.tell()
                tar.addfile(entry, io.BytesIO(data))
                if cut and index == n_images - 1:
                    truth, key = Truth(BAD_SHARD), None
                self.truths[str(path), key] = truth
        # A cut shard breaks off within the header of its last member.
        self._put(path, buffer.getvalue()[: begin + 100] if cut else buffer.getvalue())

    def _add_loose(self, name: str) -> None:
        data, truth = self._rng.choice(pool().pictures)
        path = self.folder / "loose" / f"{name}.jpg"
        self._put(path, data)
        self.truths[str(path), None] = truth

    def _put(self, path: Path, data: bytes) -> None:
        """Create a file whole, as an upload does."""
        draft = path.with_name(f".{path.name}.draft")
        draft.write_bytes(data)
        draft.rename(path)
