"""A run that is broken at its n-th operation, whatever that is, and what must be true after the next one.

Two stories, both played over a store that was broken once: a first run, and a run that replaces and drops rows of the
first.  Afterwards: the same command again, then a changed world, and again; every row exactly once.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from support.toy import Thing, World, assert_exact, play
from zsic.core.errors import StoreError, ZsicError
from zsic.core.spec import StoreSpec
from zsic.storage.mirror import Mirror
from zsic.storage.output import Output
from zsic.storage.snapshot import Snapshot
from zsic.storage.store import Store

Act = Literal["die before", "die after", "lose the answer", "fail"]
ACTS: tuple[Act, ...] = ("die before", "die after", "lose the answer", "fail")
STORIES = ("first", "second")


class DeadError(BaseException):
    """The process is dead; nothing catches it."""


class Breaking:
    """A store of which one operation, counted from 1, breaks; after a death every further one is dead too."""

    def __init__(self, store: Store, at: int = 0, act: Act = "fail") -> None:
        self._store = store
        self._at, self._act = at, act
        self.uri = store.uri
        self.n_operations = 0
        self.is_dead = False

    def _around(self, operate: Callable[[], object]) -> object:
        if self.is_dead:
            raise DeadError
        self.n_operations += 1
        if self.n_operations != self._at:
            return operate()
        if self._act == "fail":
            raise StoreError("injected: the store failed")
        if self._act == "lose the answer":
            operate()  # carried out; the client asks again
            return operate()
        self.is_dead = True
        if self._act == "die after":
            operate()
        raise DeadError

    def create(self, name: str, data: bytes) -> bool:
        return bool(self._around(lambda: self._store.create(name, data)))

    def read(self, name: str) -> bytes | None:
        return self._around(lambda: self._store.read(name))  # type: ignore[return-value]

    def open(self, name: str) -> BinaryIO:
        return self._around(lambda: self._store.open(name))  # type: ignore[return-value]

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        yield from self._around(lambda: list(self._store.list(prefix)))  # type: ignore[misc]

    def delete(self, name: str) -> None:
        self._around(lambda: self._store.delete(name))

    def digest(self, name: str) -> str:
        return str(self._around(lambda: self._store.digest(name)))


class BreakingMirror(Mirror):
    """A Delta table whose commits are operations of a breaking store: each is one put, that happens or not."""

    def __init__(self, breaking: Breaking, store: Store, spec: StoreSpec) -> None:
        super().__init__(store, spec, wanted=True)
        self._breaking = breaking
        self.published_at: list[int] = []
        """The numbers of the commits among the operations."""

    def follow(self, snapshot: Snapshot) -> None:
        self._breaking._around(lambda: super(BreakingMirror, self).follow(snapshot))
        self.published_at.append(self._breaking.n_operations)


class Hours:
    """A clock on which waiting takes no time, so that a dead run's lease is soon taken over."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def make_world() -> World:
    """Images, a damaged one, one out of reach, and a shard."""
    world = World()
    world.add([f"/photos/{number}.jpg" for number in range(4)])
    world.add(["/photos/far.jpg"], broken_at=0)
    world.add(["/photos/s.tar"], kind="tar", n_images=5, corrupt=frozenset({1}))
    return world


def change_world(world: World) -> None:
    """Something new, something changed, something gone, something back in reach."""
    world.things["/photos/0.jpg"].version += 1
    world.things["/photos/far.jpg"].broken_at = None
    world.things["/photos/s.tar"] = Thing("tar", 3, world.things["/photos/s.tar"].version + 1)
    world.things.pop("/photos/3.jpg", None)
    world.add([f"/photos/new-{len(world.things)}.jpg"])


def prepare(store: Store, story: str) -> World:
    """What is there before the run that breaks."""
    world = make_world()
    if story == "second":
        play(Output(store, clock=Hours()), world, run="before", rows_per_part=3)
        change_world(world)
    return world


def break_and_mend(
    store: Store,
    world: World,
    broken: Store,
    stop: Callable[[], None] = lambda: None,
    mirrors: tuple[Mirror | None, Mirror | None] = (None, None),
) -> None:
    """Play a run over the broken store to where it breaks, then go on with the sound one, and compare.

    `stop` is called in between: from then on nothing breaks.  `mirrors` are the Delta tables of both.
    """
    breaking, sound = mirrors
    with contextlib.suppress(DeadError, ZsicError):
        play(Output(broken, breaking, clock=Hours()), world, run="broken", rows_per_part=3, prune=True)
    stop()
    world.add(["/photos/late.jpg"])
    for number in range(3):
        play(Output(store, sound, clock=Hours()), world, run=f"mended-{number}", rows_per_part=3, prune=True)
    # An image that stays out of reach is tried a few times more; the table is exact all the same.
    assert_exact(store, world)
    change_world(world)
    play(Output(store, sound, clock=Hours()), world, run="later", rows_per_part=3, prune=True)
    assert_exact(store, world)


def count_operations(store: Store, world: World) -> int:
    """Operations of an undisturbed run."""
    counting = Breaking(store)
    play(Output(counting, clock=Hours()), world, run="broken", rows_per_part=3, prune=True)
    return counting.n_operations


class DiskWatch:
    """Breaks the n-th file operation below a folder: every opening, linking, unlinking, listing and making of folders.

    Works by Python's audit events, so the code under test is what it always is.
    """

    _events = frozenset({"open", "os.link", "os.remove", "os.mkdir", "os.rename", "os.scandir", "os.listdir"})

    def __init__(self) -> None:
        self._root: str | None = None
        self._at = 0
        self._act = ""
        self._is_dead = False
        self.n_operations = 0
        sys.addaudithook(self._hear)

    def watch(self, root: Path, at: int = 0, act: str = "die") -> None:
        """Begin to count, and break the operation `at`: `die`, `kill` (this process), or the name of an errno."""
        self._root, self._at, self._act = str(root), at, act
        self._is_dead, self.n_operations = False, 0

    def stop(self) -> None:
        self._root = None

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._root is None or event not in self._events:
            return
        path = next((argument for argument in arguments if isinstance(argument, str | os.PathLike)), "")
        if not os.fspath(path).startswith(self._root):
            return
        if self._is_dead:
            raise DeadError
        self.n_operations += 1
        if self.n_operations == self._at:
            if self._act == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._act != "die":
                number = getattr(errno, self._act)
                raise OSError(number, os.strerror(number))
            self._is_dead = True
            raise DeadError
