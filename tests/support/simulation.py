"""Several drivers and workers over one store in memory: the real protocol, in an order that a seed decides.

Every operation of the store is a point where another actor may go on, where the operation may fail, its answer may be
lost, or its actor may die.  Nothing else is simulated: plans, ledgers, parts, snapshots and leases are the code of the
package.  What must hold is checked at the moment a snapshot is created, by a reader all along, and at the end.

Actors are greenlets: a switch takes a microsecond, and no two of them run at the same time.
"""

import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import greenlet
import pyarrow.parquet as pq

from support.toy import (
    FIELDS,
    Thing,
    World,
    assert_exact,
    begin,
    cut_tasks,
    play,
    read_published,
    read_slice,
    write_rows,
)
from zsic.core.errors import StoreError, ZsicError
from zsic.core.fingerprint import canonical
from zsic.storage.lease import BEAT_S
from zsic.storage.output import Output
from zsic.storage.part import digest_of
from zsic.storage.snapshot import last_snapshot, read_snapshot
from zsic.storage.trial import NAME as TRIAL


class MemoryStore:
    """A store in memory that does what it is told."""

    uri = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def create(self, name: str, data: bytes) -> bool:
        return self.objects.setdefault(name, data) == data

    def read(self, name: str) -> bytes | None:
        return self.objects.get(name)

    def open(self, name: str) -> BinaryIO:
        if name not in self.objects:
            raise FileNotFoundError(name)
        return io.BytesIO(self.objects[name])

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        folder = f"{prefix}/" if prefix else ""
        for name in sorted(self.objects):
            if name.startswith(folder) and "/" not in name[len(folder) :]:
                yield name, len(self.objects[name])

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def digest(self, name: str) -> str:
        if name not in self.objects:
            raise FileNotFoundError(name)
        return digest_of(self.objects[name])


class Violation(AssertionError):
    """What must hold does not."""


@dataclass(eq=False)
class Actor:
    """Something that runs: a driver, a worker, a heartbeat, a reader."""

    name: str
    let: greenlet.greenlet = field(init=False)
    wakes_at: float = 0.0
    dead: bool = False

    @property
    def is_over(self) -> bool:
        return bool(self.let.dead)


class Store(MemoryStore):
    """The shared store as one actor's process sees it."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self.objects = simulation.store.objects

    def create(self, name: str, data: bytes) -> bool:
        fate = self._simulation.turn(f"create {name}")
        if fate == "fail":
            raise StoreError("simulated: the store failed")
        won = super().create(name, data)
        self._simulation.look(name)
        fate = self._simulation.turn(f"created {name}")
        if fate == "fail":
            raise StoreError("simulated: the answer was lost")
        # A client whose answer was lost asks again, and meets its own object.
        return super().create(name, data) if fate == "lost" else won

    def read(self, name: str) -> bytes | None:
        self._fail_sometimes(f"read {name}")
        return super().read(name)

    def open(self, name: str) -> BinaryIO:
        self._fail_sometimes(f"open {name}")
        return super().open(name)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        self._fail_sometimes(f"list {prefix}")
        page = []
        for entry in [*super().list(prefix)]:  # in pages, between which the world goes on
            page.append(entry)
            if len(page) == 4:
                yield from page
                page = []
                self._simulation.turn(f"list on {prefix}")
        yield from page

    def delete(self, name: str) -> None:
        self._fail_sometimes(f"delete {name}")
        super().delete(name)
        self._simulation.turn(f"deleted {name}")

    def digest(self, name: str) -> str:
        self._fail_sometimes(f"digest {name}")
        return super().digest(name)

    def _fail_sometimes(self, what: str) -> None:
        if self._simulation.turn(what) == "fail":
            raise StoreError("simulated: the store failed")


class Clock:
    """The time of the simulation: it passes when everybody waits, and otherwise as it pleases."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation

    def monotonic(self) -> float:
        return self._simulation.now

    def sleep(self, seconds: float) -> None:
        self._simulation.sleep(seconds)


class Simulation:
    """One history.  `run` plays it to its end; raises `Violation` or what escaped from the code."""

    def __init__(self, seed: int, *, n_steps: int = 600) -> None:
        self.rng = random.Random(seed)
        self.store = MemoryStore()
        self.store.create(TRIAL, canonical({"creates_atomically": True}))
        self.world = World()
        self.now = 0.0
        self.log: list[str] = []
        self.n_published = 0
        self._actors: list[Actor] = []
        self._current: Actor | None = None
        self._n_steps = n_steps
        self._n_drivers = 0
        self._hub = greenlet.getcurrent()
        # Each history has a temper of its own: some are calm, some are storms.
        self._failing = self.rng.choice([0, 0, 0.01, 0.05])
        self._dying = self.rng.choice([0, 0.002, 0.01, 0.03])
        self._calm = False

    # What actors call.

    def turn(self, what: str) -> str | None:
        """Let others go on; returns what becomes of the operation."""
        if self._calm and self._current is None:
            return None
        self._switch(what)
        if self._calm:
            return None
        return "fail" if self.rng.random() < self._failing else "lost" if self.rng.random() < 0.05 else None

    def sleep(self, seconds: float) -> None:
        if self._current is not None:
            self._current.wakes_at = self.now + seconds
            self._switch(f"sleep {seconds}")

    def _switch(self, what: str) -> None:
        actor = self._current
        assert actor is not None
        if actor.dead:
            raise greenlet.GreenletExit
        self.log.append(f"{self.now:7.1f} {actor.name}: {what}")
        self._hub.switch()
        if actor.dead:
            raise greenlet.GreenletExit

    # What happens.

    def run(self) -> None:
        """Play the history, then let everything come to rest and compare."""
        self._fill_world()
        self._spawn("world", self._change_world)
        self._spawn("reader", self._read)
        for _ in range(self.rng.randint(1, 3)):
            self._start_driver()
        for _ in range(self._n_steps):
            if not self._step():
                break
            if self.rng.random() < 0.01 and self._n_drivers < 8:
                self._start_driver()
        self._settle_down()

    def _step(self) -> bool:
        """Let one actor go on, or die; False when none is left."""
        self._actors = [actor for actor in self._actors if not actor.is_over]
        awake = [actor for actor in self._actors if actor.wakes_at <= self.now]
        if not self._actors:
            return False
        if not awake or self.rng.random() < 0.02:
            self.now = max(self.now, min(actor.wakes_at for actor in self._actors)) + self.rng.choice([0, 0, 1, 100])
            return True
        actor = self.rng.choice(awake)
        if self.rng.random() < self._dying and actor.name.startswith("driver"):
            self._kill(actor)
            return True
        if self.rng.random() < 0.005:
            actor.wakes_at = self.now + self.rng.choice([5, 70, 500])  # a pause: SIGSTOP, a frozen machine
            return True
        self._resume(actor)
        return True

    def _resume(self, actor: Actor) -> None:
        self._current = actor
        try:
            actor.let.switch()
        finally:
            self._current = None

    def _kill(self, actor: Actor) -> None:
        """Kill a process; what belongs to it dies with it, but for some workers, which go on for a while."""
        driver = actor.name.split("/")[0]
        self.log.append(f"{self.now:7.1f} kill {actor.name}")
        for other in self._actors:
            of_it = other is actor or (actor.name == driver and other.name.startswith(f"{driver}/"))
            if of_it and not (other is not actor and "worker" in other.name and self.rng.random() < 0.3):
                other.dead = True
                self._resume(other)

    def _spawn(self, name: str, act: Callable[[], None]) -> Actor:
        actor = Actor(name)
        actor.let = greenlet.greenlet(act, parent=self._hub)
        self._actors.append(actor)
        return actor

    def _start_driver(self) -> None:
        self._n_drivers += 1
        name = f"driver-{self._n_drivers}"
        update = {"prune": self.rng.random() < 0.3, "retry_failed": self.rng.random() < 0.2}
        self._spawn(name, lambda: self._drive(name, update))

    def _drive(self, name: str, update: dict[str, bool]) -> None:
        output = Output(Store(self), clock=Clock(self), token=name)
        try:
            work = begin(output, self.world, **update)
            if work.plan is None or work.lease is None:
                return
            lease, running = work.lease, [True]

            def beat() -> None:
                while running[0]:
                    self.sleep(BEAT_S)
                    try:
                        lease.beat()
                    except ZsicError:
                        # Overtaken: a real driver would be interrupted; one that is not must do no harm.
                        return

            self._spawn(f"{name}/heart", beat)
            try:
                if output.published(work.plan) is None:
                    self._classify(name, output, work.plan)
                output.publish(work.plan, output.claim(FIELDS))
            finally:
                running[0] = False
                lease.end()
        except ZsicError as error:
            self.log.append(f"{self.now:7.1f} {name} ends: {type(error).__name__}: {error}")

    def _classify(self, name: str, output: Output, plan: object) -> None:
        """Let workers do what is pending; a worker that dies is replaced, and its task is done again."""
        tasks = cut_tasks(output, plan, self.rng.randint(1, 4))  # type: ignore[arg-type]
        left: dict[str, list[object]] = {}
        rows = [row for piece in tasks for row in read_slice(output.store, self.world, piece)]
        self.rng.shuffle(rows)
        size = self.rng.randint(1, 6)
        for number, start in enumerate(range(0, len(rows), size)):
            left[f"{name}-{number:06d}"] = list(rows[start : start + size])

        def work() -> None:
            mine = Output(Store(self), clock=Clock(self), token=name)
            while left:
                task = self.rng.choice(sorted(left))
                given = list(left[task])
                if self.rng.random() < 0.1:  # a second attempt may be given its rows in other portions
                    given = given[: self.rng.randint(1, len(given))]
                try:
                    write_rows(mine, plan, given, task)  # type: ignore[arg-type]
                except StoreError:
                    continue
                if len(given) == len(left.get(task, given)):
                    left.pop(task, None)

        workers = [self._spawn(f"{name}/worker-{n}", work) for n in range(self.rng.randint(1, 2))]
        while left:
            self.sleep(1)
            if all(worker.is_over or worker.dead for worker in workers):
                workers.append(self._spawn(f"{name}/worker-{len(workers)}", work))

    def _fill_world(self) -> None:
        self.world.add([f"/photos/{number}.jpg" for number in range(self.rng.randint(1, 4))])
        for number in range(self.rng.randint(0, 2)):
            self.world.things[f"/photos/{number}.tar"] = self._shard()

    def _shard(self, version: int = 1) -> Thing:
        n = self.rng.randint(1, 5)
        return Thing(
            "tar",
            n,
            version,
            frozenset(self.rng.sample(range(n), self.rng.randint(0, 1))),
            self.rng.choice([None, None, self.rng.randint(0, n - 1)]),
        )

    def _change_world(self) -> None:
        for n_new in range(self.rng.randint(0, 8)):
            self.sleep(self.rng.choice([0, 1, 30, 200]))
            for _ in range(self.rng.randint(0, 40)):
                self._switch("nothing yet")
            uri = self.rng.choice(sorted(self.world.things) or ["/photos/0.jpg"])
            thing = self.world.things.get(uri, Thing())
            match self.rng.choice(["add", "change", "remove", "break", "mend"]):
                case "add":
                    self.world.things[f"/photos/new-{n_new}.jpg"] = Thing()
                case "change":
                    version = thing.version + 1
                    self.world.things[uri] = Thing(version=version) if thing.kind == "image" else self._shard(version)
                case "remove" if len(self.world.things) > 1:
                    del self.world.things[uri]
                case "break":
                    thing.broken_at = self.rng.randrange(thing.n_images)
                case _:
                    thing.broken_at = None

    def _read(self) -> None:
        """A reader of what is published: whatever it finds is whole."""
        store = Store(self)
        while True:
            self.sleep(self.rng.choice([1, 5, 20]))
            try:
                before = last_snapshot(store)
                rows = read_published(store)
                if before is None or last_snapshot(store) != before:
                    continue
            except (StoreError, FileNotFoundError):
                continue  # out of reach, or replaced while it was read
            if len({row["id"] for row in rows}) != len(rows) or len(rows) != before.n_rows:
                raise Violation(f"a reader of snapshot {before.sequence} saw {len(rows)} rows, not {before.n_rows}")

    def look(self, name: str) -> None:
        """Check a snapshot at the moment it exists."""
        if not name.startswith("_zsic/snapshot/"):
            return
        data = self.store.objects[name]
        snapshot = read_snapshot(self.store, json.loads(data)["sequence"])
        assert snapshot is not None
        if snapshot.sequence < self.n_published:
            return  # Somebody came too late, and has not won.
        self.n_published = snapshot.sequence
        ids: list[int] = []
        for part in snapshot.parts:
            place = part.name if part.name in self.store.objects else f"_zsic/staged/{part.name}"
            if place not in self.store.objects:
                if self._is_second_look(snapshot.sequence):
                    return
                raise Violation(f"snapshot {snapshot.sequence} lists {part.name}, which is nowhere")
            ids += pq.read_table(io.BytesIO(self.store.objects[place]), columns=["id"], use_threads=False)[
                "id"
            ].to_pylist()
        if len(ids) != len(set(ids)) or len(ids) != snapshot.n_rows:
            raise Violation(f"snapshot {snapshot.sequence} has {len(ids)} rows, {len(set(ids))} distinct")
        self._looked = snapshot.sequence

    _looked = 0

    def _is_second_look(self, sequence: int) -> bool:
        """Whether the snapshot was seen whole when it was created; later ones may have replaced its parts."""
        return self._looked >= sequence

    def _settle_down(self) -> None:
        """No more faults: drivers and workers that live go on to their end, then one last run, then compare."""
        self._calm = True
        self._failing = self._dying = 0
        for actor in self._actors:
            if actor.name in ("reader", "world") or "heart" in actor.name:
                actor.dead = True
                self._resume(actor)
        for _ in range(20_000):
            self._actors = [actor for actor in self._actors if not actor.is_over]
            if not self._actors:
                break
            awake = [actor for actor in self._actors if actor.wakes_at <= self.now]
            if awake:
                self._resume(self.rng.choice(awake))
            else:
                self.now = min(actor.wakes_at for actor in self._actors)
        else:
            raise Violation("some actors never come to an end: " + ", ".join(actor.name for actor in self._actors))
        for thing in self.world.things.values():
            thing.broken_at = None
        self.now += 1_000
        for number in range(4):
            # The first ones finish what is open; then one lists the world as it is now.
            output = Output(self.store, clock=_Late(self), token=f"last-{number}")
            asked = number == 2
            play(output, self.world, run=f"last-{number}", prune=True, retry_failed=asked)
        if play(Output(self.store, clock=_Late(self)), self.world, run="once-more", prune=True) is not None:
            raise Violation("a run over an unchanged source has something to do")
        assert_exact(self.store, self.world)


class _Late(Clock):
    """Time that passes at once."""

    def sleep(self, seconds: float) -> None:
        self._simulation.now += seconds


def play_history(seed: int) -> Simulation:
    """Play one history; the error of one that fails tells its seed and its last steps."""
    simulation = Simulation(seed)
    try:
        simulation.run()
    except greenlet.GreenletExit:
        raise
    except BaseException as error:
        error.add_note(f"seed {seed}\n" + "\n".join(simulation.log[-60:]))
        raise
    return simulation
