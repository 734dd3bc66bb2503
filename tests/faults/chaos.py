"""For each image of the source exactly one row in the table, whatever is killed, however often it runs.

    python tests/faults/chaos.py --kills 150 --driver-kills 30 --seed 1 --results FILE.jsonl

plays rounds until so much has been killed.  A round classifies a fresh source on a cluster of its own, kills at
random, runs the same command again, and at last leaves it alone until it is done; then the table must be exact.  Each
round appends a line to the results, and the same command goes on from there.  What is drawn follows from the seed
and the round's number (`--round N` plays one again); when it strikes depends on the machine, too.
"""

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

# Run as a script, too; what tests share lies in the folder above.
sys.path.insert(0, str(Path(__file__).parent.parent))

from job import Job
from lake import Lake
from reader import Reader
from support.herd import Herd, psutil
from support.runs import read_table

from zsic.core.spec import StoreSpec
from zsic.storage.output import Output
from zsic.storage.store import open_store

NO_PROGRESS_S = 90
"""What the driver is given as its own limit."""
HUNG_S = 300
"""Without a row for so long, while next to no CPU was used, a run hangs; whatever was used, for twice as long."""
IDLE_CORES = 0.3
MOST_RUNS = 20
"""Runs of a round that are disturbed."""
MOST_CALM_RUNS = 6
"""Runs of a round that are left alone; each must publish, or at least add rows."""
WORKER_KINDS = ("decode", "encoder", "writer", "helper", "idle")


@dataclass(frozen=True)
class Size:
    """How large a round is."""

    n_shards: int = 20
    images_per_shard: int = 150
    n_loose: int = 24
    rows_per_part: int = 40
    n_kills: int = 24
    n_driver_kills: int = 5
    pause_s: float = 4.5
    """Between two blows, at most."""


SMALL = Size(n_shards=6, images_per_shard=60, n_loose=8, n_kills=5, n_driver_kills=1, pause_s=3.0)

WEIGHTS = {
    "decode": 26,
    "encoder": 16,
    "writer": 16,
    "helper": 3,
    "idle": 3,
    "all_workers": 4,
    "raylet": 6,
    "raylet_for_good": 2,
    "stop": 8,
    "zombie": 4,
    "stop_driver": 4,
    "driver": 5,
    "sigterm": 4,
    "everything": 3,
    "head": 2,
}
ENDS_DRIVER = ("driver", "sigterm", "everything", "head")
FATES = {"early": 6, "late": 2, "none": 4}
"""What is in store for a run beside that: its driver dies while it starts, or while the last rows come in."""


@dataclass
class Run:
    """One run of the driver."""

    calm: bool
    code: int | None = None
    seconds: float = 0.0
    n_rows: int = 0
    """In all parts when it ended."""
    blows: list[str] = field(default_factory=list)


@dataclass
class Result:
    """What became of a round: a line of the results."""

    round: int
    seed: str
    verdict: str = "exact"
    """Or what is wrong."""
    kills: Counter[str] = field(default_factory=Counter)
    """SIGKILLs of workers and raylets, by kind."""
    driver_kills: int = 0
    other: Counter[str] = field(default_factory=Counter)
    """What else was done, by kind."""
    codes: Counter[str] = field(default_factory=Counter)
    """Exit codes of disturbed runs; a signal as a negative number."""
    calm_codes: Counter[str] = field(default_factory=Counter)
    n_rows: int = 0
    n_late: int = 0
    n_snapshots: int = 0
    n_polls: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The result as a line of the results holds it."""
        return {**vars(self), "runs": [vars(run) for run in self.runs]}


class ViolationError(Exception):
    """A promise is broken."""


class Round:
    """A source, an output, a cluster, and what befalls them."""

    def __init__(self, folder: Path, seed: str, size: Size, result: Result) -> None:
        self._folder = folder
        self._size = size
        self._rng = Random(seed)
        self._result = result
        self.lake = Lake(
            folder / "lake",
            self._rng,
            n_shards=size.n_shards,
            images_per_shard=size.images_per_shard,
            n_loose=size.n_loose,
        )
        self.out = folder / "out"
        self._n_nodes = self._rng.choice([2, 3])
        self._job = Job(
            folder,
            self.lake,
            self.out,
            *("--rows-per-part", size.rows_per_part, "--block-rows", 20, "--decode-tasks", 2),
            *("--encoders", self._rng.choice([1, 1, 1, 2]), "--no-progress-timeout", NO_PROGRESS_S),
        )
        self._herd: Herd
        self._reader: Reader
        self._driver: subprocess.Popen[str] | None = None
        self._stopped: list[tuple[float, psutil.Process]] = []
        """Processes that were stopped, and when they go on."""
        self._later: list[tuple[float, Callable[[], None]]] = []
        """What happens when."""
        self._cpu_s = 0.0
        """Of clusters that are gone."""
        self._n_first_listing: int | None = None

    def play(self) -> None:
        """Disturb, then leave alone, then judge.  Raises `ViolationError`."""
        self._herd = Herd(self._n_nodes)
        try:
            with Reader(self.out, self._sample) as self._reader:
                try:
                    self._play()
                finally:
                    self._result.n_polls = self._reader.n_polls
            if self._reader.faults:
                raise ViolationError(f"a reader met: {self._reader.faults[0]}")
            if not self._reader.n_polls:
                raise ViolationError("the reader did not read")
        finally:
            if self._driver is not None and self._driver.poll() is None:
                self._driver.kill()
                self._driver.wait()
            self._keep_logs()
            self._close_herd()
            self._result.cpu_s = round(self._cpu_s, 1)

    def _play(self) -> None:
        while len(self._result.runs) < MOST_RUNS and self._blows_left():
            code = self._run(calm=False)
            if code == 0 and not self._grow(0.8):
                break
            if code != 0:
                self._grow(0.25)
            self._repair()
        self._wake(time.monotonic() + 1e9)
        self._do_later(time.monotonic() + 1e9)
        self._repair()
        for _ in range(MOST_CALM_RUNS):
            before = self._reader.n_rows
            code = self._run(calm=True)
            if code == 0 and "Nothing to do" in self._job.said("stdout"):
                break
            if code == 3:
                if self._reader.n_rows <= before:
                    raise ViolationError(f"a run that was left alone got nowhere: {self._said('stderr')[-500:]}")
            elif code != 0:
                raise ViolationError(f"a run that was left alone ended with {code}: {self._said('stderr')[-500:]}")
        else:
            raise ViolationError(f"not whole after {MOST_CALM_RUNS} runs that were left alone")
        self._judge()

    def _judge(self) -> None:
        if differences := self._job.differences():
            raise ViolationError("; ".join(differences))
        glob = read_table(self.out)
        self._result.n_rows = glob.num_rows
        self._result.n_late = sum(uri in self.lake.late for uri in glob["uri"].to_pylist())
        self._result.n_snapshots = len(list((self.out / "_zsic" / "snapshot").glob("*.json")))
        if self._n_first_listing is not None:
            # The open plan must not have taken up what came after it.
            rows = zip(glob["id"].to_pylist(), glob["uri"].to_pylist(), strict=True)
            late = [each >> 24 for each, uri in rows if uri in self.lake.late]
            if late and min(late) < self._n_first_listing:
                raise ViolationError("a source that came later has an ordinal of the first plan")

    # One run of the driver.

    def _run(self, *, calm: bool) -> int:
        run = Run(calm)
        self._result.runs.append(run)
        began = time.monotonic()
        fate = "none" if calm or not self._driver_kills_left() else _draw(self._rng, FATES)
        strikes_at = began + self._rng.uniform(0.2, 14.0) if fate == "early" else began + 1e9
        next_at = began + self._rng.uniform(0.0, 3.0) + (0 if len(self._result.runs) == 1 else 8)
        n_rows = self._reader.n_rows
        seen_at, seen_cpu_s, patient = began, self._herd.cpu_s, True
        waited_for = n_rows
        self._driver = self._job.start("--address", self._herd.address)
        while self._driver.poll() is None:
            now = time.monotonic()
            self._wake(now)
            self._do_later(now)
            if self._reader.n_rows > n_rows:
                n_rows, seen_at, seen_cpu_s = self._reader.n_rows, now, self._herd.cpu_s
            self._see_that_it_moves(now - seen_at, self._herd.cpu_s - seen_cpu_s)
            if not calm:
                if fate == "late" and n_rows > 0.95 * len(self.lake.truths):
                    strikes_at, fate = now + self._rng.uniform(0.0, 2.0), "none"
                if now > strikes_at:
                    strikes_at = now + 1e9
                    self._strike("driver", run)
                elif now > next_at and (not patient or n_rows > waited_for or now > next_at + 20):
                    # Mostly it waits for some rows between two blows, so that rounds come to an end.
                    patient, waited_for = self._rng.random() < 0.6, n_rows
                    if self._blows_left():
                        self._strike(self._draw_blow(), run)
                    next_at = time.monotonic() + self._rng.uniform(0.3, self._size.pause_s)
            time.sleep(0.1)
        run.code, run.seconds, run.n_rows = self._driver.returncode, round(time.monotonic() - began, 1), n_rows
        (self._result.calm_codes if calm else self._result.codes)[str(run.code)] += 1
        self._check_code(run)
        return run.code

    def _check_code(self, run: Run) -> None:
        allowed = {0, 3}
        struck = {blow.split()[0] for blow in run.blows}
        if struck & {"driver", "everything"}:
            allowed.add(-signal.SIGKILL)
        if "sigterm" in struck:
            allowed.add(-signal.SIGTERM)  # it was still loading
        # Nodes were gone when it came to lay out the job, and it said so.
        if struck & {"raylet", "raylet_for_good", "zombie", "everything", "head"} and run.code == 2:
            text = self._job.said()
            if "CPUs" in text or "no node has room" in text or "cannot be reached" in text:
                allowed.add(2)
        if run.code not in allowed:
            text = f"exit code {run.code} after {run.blows or 'nothing'}: {self._said('stderr')[-500:]}"
            raise ViolationError(text)

    def _see_that_it_moves(self, seconds: float, cpu_s: float) -> None:
        if seconds > 2 * HUNG_S or (seconds > HUNG_S and cpu_s < IDLE_CORES * seconds):
            raise ViolationError(f"no row for {seconds:.0f} s, {cpu_s:.0f} CPU seconds used: it hangs")

    # Blows.

    def _driver_kills_left(self) -> int:
        return self._size.n_driver_kills - self._result.driver_kills

    def _blows_left(self) -> bool:
        return self._result.kills.total() < self._size.n_kills or self._driver_kills_left() > 0

    def _draw_blow(self) -> str:
        weights = {
            kind: weight
            for kind, weight in WEIGHTS.items()
            if (self._driver_kills_left() > 0 or kind not in ENDS_DRIVER)
            and (self._result.kills.total() < self._size.n_kills or kind in ENDS_DRIVER)
        }
        return _draw(self._rng, weights)

    def _strike(self, kind: str, run: Run) -> None:
        """Do one thing, if there is something to do it to."""
        done = getattr(self, f"do_{kind}")() if kind not in WORKER_KINDS else self._kill_worker(kind)
        if done:
            run.blows.append(f"{kind} {done} rows={self._reader.n_rows}")

    def _kill_worker(self, kind: str) -> str:
        process = self._find_worker(kind)
        if process is None:
            return ""
        self._herd.sample()
        _send(process, signal.SIGKILL)
        self._result.kills[kind] += 1
        return str(process.pid)

    def _find_worker(self, kind: str) -> psutil.Process | None:
        """A worker of a kind; waits a while for one, as write tasks are short."""
        deadline = time.monotonic() + 4.0
        while time.monotonic() < deadline and self._driver is not None and self._driver.poll() is None:
            if found := self._herd.workers(kind):
                return self._rng.choice(found)
            time.sleep(0.02)
        return None

    def do_all_workers(self) -> str:
        self._herd.sample()
        killed = []
        for kind in ("decode", "encoder", "writer"):
            for process in self._herd.workers(kind):
                _send(process, signal.SIGKILL)
                self._result.kills[kind] += 1
                killed.append(str(process.pid))
        return " ".join(killed)

    def do_raylet(self) -> str:
        if not self._herd.nodes:
            return ""
        self._herd.kill_node(self._rng.choice(self._herd.nodes))
        self._result.kills["raylet"] += 1
        self._later.append((time.monotonic() + self._rng.uniform(0.0, 15.0), self._herd.add_node))
        return "comes back"

    def do_raylet_for_good(self) -> str:
        if len(self._herd.nodes) < 2:
            return ""
        self._herd.kill_node(self._rng.choice(self._herd.nodes))
        self._result.kills["raylet"] += 1
        return f"{len(self._herd.nodes)} left"

    def do_stop(self) -> str:
        """Stop a worker for some seconds; it may go on after the driver is gone."""
        kind = self._rng.choice(["decode", "encoder", "writer"])
        process = self._find_worker(kind)
        if process is None:
            return ""
        seconds = self._rng.choice([1.0, 3.0, 10.0, 40.0])
        _send(process, signal.SIGSTOP)
        self._stopped.append((time.monotonic() + seconds, process))
        self._result.other["stop"] += 1
        return f"{kind} {process.pid} for {seconds:g} s"

    def do_zombie(self) -> str:
        """Stop a worker, kill its node, and let it finish what it did when others have done it."""
        process = self._find_worker(self._rng.choice(["writer", "writer", "encoder", "decode"]))
        if process is None:
            return ""
        self._herd.sample()
        _send(process, signal.SIGSTOP)
        for node in self._herd.nodes:
            if process in self._herd.processes_of(node):
                self._herd.kill_node(node)
                self._result.kills["raylet"] += 1
                self._later.append((time.monotonic() + self._rng.uniform(0.0, 5.0), self._herd.add_node))
                break
        seconds = self._rng.uniform(3.0, 40.0)
        self._stopped.append((time.monotonic() + seconds, process))
        self._result.other["zombie"] += 1
        return f"{process.pid} for {seconds:.0f} s"

    def do_stop_driver(self) -> str:
        assert self._driver is not None
        seconds = self._rng.choice([1.0, 5.0, 15.0])
        process = psutil.Process(self._driver.pid)
        _send(process, signal.SIGSTOP)
        self._stopped.append((time.monotonic() + seconds, process))
        self._result.other["stop driver"] += 1
        return f"for {seconds:g} s"

    def do_driver(self) -> str:
        """The machine of the driver is gone."""
        self._kill_driver()
        return "SIGKILL"

    def do_sigterm(self) -> str:
        """A scheduler stops the job, and kills it where it does not go."""
        assert self._driver is not None
        self._driver.terminate()
        # One that stands still would hear of it only afterwards, from a schedule that waits for it here.
        _send(psutil.Process(self._driver.pid), signal.SIGCONT)
        self._result.other["sigterm"] += 1
        try:
            self._driver.wait(30)
        except subprocess.TimeoutExpired:
            raise ViolationError("the driver was still there 30 s after SIGTERM") from None
        return "SIGTERM"

    def do_everything(self) -> str:
        """A power failure, the head's node left out."""
        self._kill_driver()
        for node in list(self._herd.nodes):
            self._herd.kill_node(node)
            self._result.kills["raylet"] += 1
        return "SIGKILL"

    def do_head(self) -> str:
        """The head is gone, and all that hangs on it; a driver must notice."""
        assert self._driver is not None
        self._herd.kill_head()
        self._result.other["head"] += 1
        try:
            self._driver.wait(120)
        except subprocess.TimeoutExpired:
            raise ViolationError("the driver was still there 120 s after its head was killed") from None
        return f"the driver ended with {self._driver.returncode}"

    def _kill_driver(self) -> None:
        assert self._driver is not None
        self._driver.kill()
        self._driver.wait()
        self._result.driver_kills += 1

    # Between blows.

    def _wake(self, now: float) -> None:
        """Let those go on whose time has come."""
        for entry in list(self._stopped):
            if now >= entry[0]:
                self._stopped.remove(entry)
                _send(entry[1], signal.SIGCONT)

    def _do_later(self, now: float) -> None:
        for entry in list(self._later):
            if now >= entry[0]:
                self._later.remove(entry)
                entry[1]()

    def _repair(self) -> None:
        """Before the next run: a cluster that has its head, and as many nodes as it had."""
        if not self._herd.has_head:
            self._later.clear()
            self._close_herd()
            self._herd = Herd(self._n_nodes)
        while len(self._herd.nodes) + len(self._later) < self._n_nodes:
            self._herd.add_node()
        if not self._herd.nodes:
            self._do_later(time.monotonic() + 1e9)

    def _grow(self, probability: float) -> bool:
        """Perhaps add to the source; what is being classified must not take it up."""
        if self._rng.random() > probability or len(self.lake.late) >= 8:
            return False
        output = Output(open_store(str(self.out), StoreSpec()))
        if not self.lake.late and (output.open_plan() is not None or output.last_snapshot() is not None):
            self._n_first_listing = len({uri for uri, _ in self.lake.truths})
        self.lake.grow()
        return True

    def _sample(self) -> None:
        self._herd.sample()

    def _close_herd(self) -> None:
        self._herd.close()
        self._cpu_s += self._herd.cpu_s
        if left := self._herd.survivors():
            self._result.notes.append(f"still there: {left}")

    def _keep_logs(self) -> None:
        """Ray's own logs, as long as the folder lives."""
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(self._herd.folder / "session_latest" / "logs", self._folder / "ray", dirs_exist_ok=True)


def play(seed: int, number: int, size: Size, keep: Path) -> Result:
    """Play one round; what is left of one that breaks a promise is moved to `keep`."""
    result = Result(number, f"{seed}:{number}")
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="zsic-chaos-"))
    try:
        Round(folder, result.seed, size, result).play()
    except ViolationError as violation:
        result.verdict = str(violation)
        shutil.copytree(folder, keep / f"round-{number}", dirs_exist_ok=True, symlinks=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.seconds = round(time.monotonic() - began, 1)
    return result


def _draw(rng: Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal, if the process still lives and its number is nobody else's."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def describe(lines: list[dict[str, Any]]) -> str:
    """All rounds so far, as a Markdown table."""
    kills: Counter[str] = Counter()
    other: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for line in lines:
        kills.update(line["kills"])
        other.update(line["other"])
        codes.update(line["codes"])
    n_kills, n_driver_kills = kills.total(), sum(line["driver_kills"] for line in lines)
    cpu_s, seconds = sum(line["cpu_s"] for line in lines), sum(line["seconds"] for line in lines)
    rows = {
        "rounds": len(lines),
        "rounds whose table was exact": sum(line["verdict"] == "exact" for line in lines),
        "SIGKILLs of workers and nodes": f"{n_kills} ({_told(kills)})",
        "SIGKILLs of drivers": n_driver_kills,
        "beside them": _told(other),
        "exit codes of disturbed runs": _told(codes),
        "runs": sum(len(line["runs"]) for line in lines),
        "rows published": f"{sum(line['n_rows'] for line in lines):,}",
        "increments published": sum(line["n_snapshots"] for line in lines),
        "looks of a reader meanwhile": f"{sum(line['n_polls'] for line in lines):,}",
        "minutes": f"{seconds / 60:.0f}",
        "CPU seconds a kill": f"{cpu_s / max(n_kills + n_driver_kills, 1):.1f}",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.most_common()) or "-"


def main() -> int:
    """Play rounds until so much has been killed; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=150, help="SIGKILLs of workers and nodes")
    parser.add_argument("--driver-kills", type=int, default=30, help="SIGKILLs of drivers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; goes on from them")
    parser.add_argument("--round", type=int, help="play this round only")
    parser.add_argument("--small", action="store_true", help="small rounds")
    options = parser.parse_args()
    # Whoever ends it, it takes its clusters with it; a background job of a shell is deaf to Ctrl-C otherwise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    keep = options.results.with_suffix(".kept")
    size = SMALL if options.small else Size()
    lines = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    while options.round is not None or (
        sum(sum(line["kills"].values()) for line in lines) < options.kills
        or sum(line["driver_kills"] for line in lines) < options.driver_kills
    ):
        number = len(lines) if options.round is None else options.round
        result = play(options.seed, number, size, keep)
        lines.append(result.to_dict())
        with options.results.open("a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
        print(
            f"round {number}: {result.kills.total()} kills, {result.driver_kills} of drivers, "
            f"{len(result.runs)} runs, codes {_told(result.codes)}; {result.n_rows:,} rows, {result.seconds:.0f} s, "
            f"{result.cpu_s:.0f} CPU s: {result.verdict}",
            flush=True,
        )
        if options.round is not None:
            break
    print(describe(lines))
    return 0 if all(line["verdict"] == "exact" for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
