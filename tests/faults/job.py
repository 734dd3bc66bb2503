"""The job as a user starts it: a process of its own, the same command each time."""

import subprocess
import sys
import time
from pathlib import Path

from lake import MAX_PIXELS, Lake
from reader import read_published
from support.runs import LABELS, read_table


class Job:
    """One command over one source into one output; what each run says is kept."""

    def __init__(self, folder: Path, lake: Lake, out: Path, *arguments: object) -> None:
        self._folder = folder
        self._lake = lake
        self._arguments = [str(argument) for argument in arguments]
        self.out = out
        self.n_runs = 0

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a run; it is deaf to what befalls its parent's terminal."""
        self.n_runs += 1
        command = [sys.executable, "-m", "zsic", "classify", *self._lake.arguments, "--labels", ",".join(LABELS)]
        command += ["--output", str(self.out), "--max-pixels", str(MAX_PIXELS), *self._arguments]
        with self._file("stdout").open("w") as stdout, self._file("stderr").open("w") as stderr:
            return subprocess.Popen(
                [*command, *map(str, arguments)], stdout=stdout, stderr=stderr, text=True, start_new_session=True
            )

    def run(self, *arguments: object, limit_s: float = 600) -> int:
        """One run from begin to end; its exit code."""
        driver = self.start(*arguments)
        try:
            return driver.wait(limit_s)
        finally:
            driver.kill()

    def said(self, stream: str = "stderr") -> str:
        """What the last run wrote."""
        return self._file(stream).read_text()

    def n_parts(self) -> int:
        """Parts that exist, published or not."""
        return len(list(self.out.glob("*.parquet")))

    def wait_for_parts(self, driver: subprocess.Popen[str], n: int, limit_s: float = 300) -> None:
        """Wait until the run has written so many parts."""
        deadline = time.monotonic() + limit_s
        while self.n_parts() < n:
            assert driver.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def differences(self) -> list[str]:
        """What is not as it must be when a run has ended with 0: by `verify`, by the glob and by the snapshot."""
        verified = subprocess.run(
            [sys.executable, "-m", "zsic", "verify", str(self.out)], capture_output=True, text=True, check=False
        )
        found = [f"verify: {verified.stderr[-500:]}"] if verified.returncode else []
        listed = read_published(self.out)
        assert listed is not None
        for what, table in (("the glob", read_table(self.out)), ("the snapshot", listed)):
            found += [f"{what}: {difference}" for difference in self._lake.differences(table)]
        return found

    def _file(self, stream: str) -> Path:
        return self._folder / f"{self.n_runs}.{stream}"
