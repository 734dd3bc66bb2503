"""Who is at work on an output: so that a second run does not do the work of the first again.

    OUT/_zsic/lease/00000007.json          the seventh run into this output, and who does it
    OUT/_zsic/lease/00000007.beat-00000012 its latest sign of life; the one before is deleted
    OUT/_zsic/lease/00000007.end           it is over

A lease saves work and decides nothing: what holds the output together is that a snapshot is created once.  No clock
is compared with another: a holder is dead when it has not been heard of for `SILENCE_S` by the clock of who asks, or
when it was a process of this machine that is gone.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zsic.core.errors import IncompleteError, StoreError
from zsic.core.fingerprint import canonical
from zsic.storage.store import Store

FOLDER = "_zsic/lease"
BEAT_S = 10.0
"""Between two signs of life."""
SILENCE_S = 60.0
"""A run that gives no sign for so long is taken for dead."""
SETTLING_S = 2.0
"""Where two creators of one object can both succeed: so long after, it is what it will be."""


class Clock(Protocol):
    """What of `time` is used; a simulation has its own."""

    def monotonic(self) -> float:
        """Seconds."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


class OvertakenError(IncompleteError):
    """Another run has taken the output over, because this one was silent for too long."""


@dataclass
class Lease:
    """The right to work on an output, until somebody else has a later one."""

    store: Store
    number: int
    _n_beats: int = field(default=0, init=False)

    def beat(self) -> None:
        """Give a sign of life.  Raises `OvertakenError` when another run goes on in our place."""
        if (latest := _read_state(self.store).number) > self.number:
            raise OvertakenError(
                f"another run has taken over {self.store.uri} (its lease is {latest}, ours {self.number}), for this "
                "one was not heard of for a while; nothing is lost: the same command resumes"
            )
        before, self._n_beats = self._n_beats, self._n_beats + 1
        self.store.create(_beat_name(self.number, self._n_beats), b"")
        if before:
            self.store.delete(_beat_name(self.number, before))

    def end(self) -> None:
        """Let the next run in at once.  It does not matter if this fails."""
        with contextlib.suppress(StoreError):
            self.store.create(f"{FOLDER}/{self.number:08d}.end", b"")


def take_lease(
    store: Store,
    holder: Mapping[str, object],
    *,
    atomic: bool = True,
    clock: Clock = time,
    tell: Callable[[str], None] = lambda text: None,
) -> Lease:
    """Begin to work on an output.

    Waits up to `SILENCE_S` to see whether an earlier holder lives, and tells so.  Raises `IncompleteError` if it
    does.  `atomic` is whether the store lets one of several creators win.
    """
    state = _read_state(store)
    if state.number and not state.ended and not _is_gone(state.holder):
        who = f"process {state.holder.get('pid')} on {state.holder.get('host')}"
        tell(f"waiting up to {SILENCE_S:.0f} s to see whether an earlier run ({who}) is still at work")
        _watch(store, state, clock)
    _forget(store, state.number)
    number = state.number + 1
    name = f"{FOLDER}/{number:08d}.json"
    won = store.create(name, canonical(dict(holder)))
    if won and not atomic:
        clock.sleep(SETTLING_S)
        won = store.read(name) == canonical(dict(holder))
    if not won:
        raise IncompleteError(_refusal(store, _read_state(store).holder))
    return Lease(store, number)


def describe_holder(token: str) -> dict[str, object]:
    """Say who asks: this process, in words that tell later, on the same machine, whether it is gone."""
    return {"token": token, "host": socket.gethostname(), "pid": os.getpid(), **_place(os.getpid())}


@dataclass(frozen=True)
class _State:
    """What the lease folder says."""

    number: int
    holder: dict[str, Any]
    ended: bool
    beat: str
    """The latest sign of life."""


def _read_state(store: Store) -> _State:
    names = [name.rpartition("/")[2] for name, _ in store.list(FOLDER)]
    number = max((int(name[:8]) for name in names if name.endswith(".json")), default=0)
    of_it = [name for name in names if name.startswith(f"{number:08d}.")]
    data = store.read(f"{FOLDER}/{number:08d}.json") if number else None
    return _State(
        number,
        json.loads(data) if data else {},
        f"{number:08d}.end" in of_it,
        max((name for name in of_it if ".beat-" in name), default=""),
    )


def _watch(store: Store, state: _State, clock: Clock) -> None:
    """Wait until the holder is known to be dead.  Raises `IncompleteError` when it gives a sign of life."""
    until = clock.monotonic() + SILENCE_S
    while clock.monotonic() < until:
        clock.sleep(BEAT_S / 4)
        now = _read_state(store)
        if now.ended and now.number == state.number:
            return
        if (now.number, now.beat) != (state.number, state.beat):
            raise IncompleteError(_refusal(store, now.holder))


def _refusal(store: Store, holder: Mapping[str, object]) -> str:
    return (
        f"another run is at work on {store.uri} (process {holder.get('pid')} on {holder.get('host')}); wait for its "
        "end, then run this command again if there is something left"
    )


def _forget(store: Store, number: int) -> None:
    """Delete what is left of leases before the latest one."""
    for name, _ in store.list(FOLDER):
        if int(name.rpartition("/")[2][:8]) < number:
            store.delete(name)


def _beat_name(number: int, n_beats: int) -> str:
    return f"{FOLDER}/{number:08d}.beat-{n_beats:08d}"


def _is_gone(holder: Mapping[str, object]) -> bool:
    """Whether the holder was a process of this machine that does not exist any more."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or holder.get("host") != socket.gethostname():
        return False
    here = _place(os.getpid())
    if any(holder.get(name) != here[name] for name in ("boot", "namespace")):
        # Another container of that name, or before a restart: then it is gone, but which of the two is not known.
        return False
    return not Path(f"/proc/{pid}").exists() or _place(pid)["started"] != holder.get("started")


def _place(pid: int) -> dict[str, object]:
    """What tells a process from another one that gets its number later."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
        started = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return {"boot": None, "namespace": None, "started": None}
    return {"boot": boot, "namespace": namespace, "started": started}
