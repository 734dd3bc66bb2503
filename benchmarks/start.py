"""Small things, starts included: a help text, nothing to do, one picture, and a job of some hundred, against the peers.

    python benchmarks/start.py [--photos FOLDER] [--images 500] [--rounds 5] [--write]

Each command is a process of its own, and is timed by the wall clock from its start to its end; so nothing else may run
on the machine.  The commands of a group come by turns, round after round, and medians are compared: what the machine
does meanwhile meets all of them.  Each finds zsic's cache empty, but for the picture whose labels are known already.

- The peers: transformers' pipeline in a script over the same files, and the shape that Ray's documentation shows
  (`benchmarks/peers.py`).
- What Ray itself takes: a flow of the same files through stages that do nothing.  To it comes what the bare loop of
  `benchmarks/pipeline.py` works on these pictures, its start left out.

The floors are those of `FLOORS`.  The answers of the jobs are compared before anything is printed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import machine, python, write_results
from pictures import draw_jpeg, draw_shard, link_files

HERE = Path(__file__).parent
Seconds = dict[str, float]


@dataclass(frozen=True)
class Floor:
    """A command may take at most so many seconds, or so many times what others take together."""

    command: str
    most: float
    of: tuple[str, ...] = ()

    def value(self, seconds: Seconds) -> float:
        return seconds[self.command] / (sum(seconds[name] for name in self.of) if self.of else 1.0)

    def describe(self) -> str:
        return f"x {' + '.join(self.of)}" if self.of else "s"


FLOORS = (
    Floor("zsic --help", 0.3),
    Floor("zsic classify --help", 0.3),
    Floor("classify, nothing to do", 1.5),
    Floor("predict, known labels", 1.6, ("import torch",)),
    Floor("predict, new labels", 1.6, ("import torch",)),
    Floor("classify", 0.7, ("transformers' pipeline",)),
    Floor("classify on Ray", 1.3, ("idle Ray", "bare work")),
    Floor("classify on Ray", 1.0, ("Ray's shape",)),
)


@dataclass
class Runner:
    """Runs commands by turns and keeps how long they took."""

    work: Path
    taken: dict[str, list[float]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last line of a command's output, where that is JSON."""
    n: int = 0

    def run(self, name: str, command: Sequence[str], cache: Path | None = None) -> None:
        """Run once; without a cache to be found, with an empty one."""
        self.n += 1
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache or self.work / f"cache-{self.n}")}
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        self.taken.setdefault(name, []).append(time.perf_counter() - started)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        lines = done.stdout.strip().splitlines()
        self.results[name] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        print(f"{name}: {self.taken[name][-1]:.2f} s", file=sys.stderr)

    def medians(self) -> Seconds:
        return {name: statistics.median(taken) for name, taken in self.taken.items()}


def zsic(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "zsic", *map(str, arguments)]


def peer(name: str, source: Path, out: Path) -> list[str]:
    return python(HERE / "peers.py", name, source, out)


def time_commands(runner: Runner, rounds: int) -> None:
    """Commands that start no job."""
    source, out, cache = (runner.work / name for name in ("few", "few-out", "cache"))
    source.mkdir()
    for number in range(8):
        (source / f"{number}.jpg").write_bytes(draw_jpeg(number))
    picture = source / "0.jpg"
    classify = zsic("classify", source, "--labels", "cat,dog", "--output", out)
    runner.run("first", classify, cache)
    runner.run("first", zsic("predict", picture, "--labels", "cat,dog"), cache)
    del runner.taken["first"]
    for _ in range(rounds):
        runner.run("import torch", [sys.executable, "-c", "import torch"])
        runner.run("zsic --help", zsic("--help"))
        runner.run("zsic classify --help", zsic("classify", "--help"))
        runner.run("classify, nothing to do", classify, cache)
        runner.run("predict, known labels", zsic("predict", picture, "--labels", "cat,dog"), cache)
        runner.run("predict, new labels", zsic("predict", picture, "--labels", "cat,dog"))
        runner.run("labels check", zsic("labels", "check", "cat,dog"))
        runner.run("verify", zsic("verify", out))
        runner.run("plan", zsic("plan", source, "--labels", "cat,dog", "--output", runner.work / "none"))


def time_jobs(runner: Runner, source: Path, labels: Path, rounds: int) -> None:
    """Each of the peers over the same files, into a folder that is new."""

    def into(name: str, command: Callable[[Path], list[str]]) -> None:
        out = runner.work / "outs" / name
        shutil.rmtree(out, ignore_errors=True)
        runner.run(name, command(out))

    given = ("--labels", labels, "--output")
    for _ in range(rounds):
        into("classify", lambda out: zsic("classify", source, *given, out))
        into("transformers' pipeline", lambda out: peer("transformers", source, out))
        into("classify on Ray", lambda out: zsic("classify", source, *given, out, "--engine", "ray"))
        into("Ray's shape", lambda out: peer("ray", source, out))
        into("idle Ray", lambda out: peer("idle-ray", source, out))
        into("bare loop", lambda out: python(HERE / "pipeline.py", "--part", "bare", "--source", source))
        work = runner.results["bare loop"]["seconds"]
        runner.taken.setdefault("bare work", []).append(sum(s for step, s in work.items() if step != "list"))


def check_answers(runner: Runner, n_images: int) -> None:
    """The jobs' answers are those of the bare loop, and those of others but for the rounding of their pixels."""
    import pyarrow.parquet as pq

    expected = runner.results["bare loop"]["answers"]
    found: dict[str, dict[str, str]] = {"transformers' pipeline": runner.results["transformers' pipeline"]["answers"]}
    for name, uri in (("classify", "uri"), ("classify on Ray", "uri"), ("Ray's shape", "path")):
        tables = [
            pq.read_table(path, columns=[uri, "label"]) for path in (runner.work / "outs" / name).glob("*.parquet")
        ]
        rows = [row for table in tables for row in table.to_pylist()]
        found[name] = {f"{Path(row[uri]).stem}/{Path(row[uri]).name}": row["label"] for row in rows}
    for name, answers in found.items():
        same = sum(answers.get(key) == label for key, label in expected.items())
        if len(answers) != n_images or same < (1.0 if name.startswith("classify") else 0.95) * n_images:
            raise SystemExit(f"{name}: {len(answers)} of {n_images} answers, of which {same} are the bare loop's")


def report(runner: Runner, options: argparse.Namespace) -> tuple[str, bool]:
    """The tables, and whether all floors hold."""
    seconds = runner.medians()
    pictures = "photographs" if options.photos else "drawn pictures"
    rows = [
        f"| {name} | {seconds[name]:.2f} | {min(taken):.2f} to {max(taken):.2f} "
        f"| {seconds[name] / seconds['import torch']:.2f} |"
        for name, taken in runner.taken.items()
    ]
    floors, all_hold = [], True
    for floor in FLOORS:
        value = floor.value(seconds)
        holds = value <= floor.most
        all_hold &= holds
        floors.append(
            f"| {'PASS' if holds else 'FAIL'} | {floor.command} | {value:.2f} {floor.describe()} | {floor.most:g} |"
        )
    return (
        "\n".join(
            [
                "# Starts and small jobs",
                "",
                f"`benchmarks/start.py`, medians of {options.rounds} rounds, of jobs {options.job_rounds}; "
                f"{options.images} {pictures} as files, bundled model; {machine()}.",
                "",
                "| | seconds | from, to | of import torch |",
                "|---|---|---|---|",
                *rows,
                "",
                "| | | measured | at most |",
                "|---|---|---|---|",
                *floors,
                "",
            ]
        ),
        all_hold,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of tar shards with JPEG photographs; drawn ones without it")
    parser.add_argument("--images", type=int, default=500, help="pictures of a job")
    parser.add_argument("--rounds", type=int, default=5, help="of the commands that start no job")
    parser.add_argument("--job-rounds", type=int, default=3, help="of the jobs")
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results")
    options = parser.parse_args()
    from zsic.demo.label_sets import labels

    with tempfile.TemporaryDirectory(prefix="start-bench-") as folder:
        work = Path(folder)
        shards = sorted(options.photos.glob("*.tar")) if options.photos else [draw_shard(work / "drawn.tar", 200)]
        source = link_files(shards, work / "files", options.images)
        names = work / "labels.txt"
        names.write_text("".join(f"{name}\n" for name in labels()), encoding="utf-8")
        runner = Runner(work)
        time_commands(runner, options.rounds)
        time_jobs(runner, source, names, options.job_rounds)
        check_answers(runner, options.images)
        text, all_hold = report(runner, options)
    print(text)
    if options.write:
        print(write_results("start", text))
    if not all_hold:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
