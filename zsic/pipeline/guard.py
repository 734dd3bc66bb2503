"""What may end a run from the side: another run that has taken the output over, or too many failures."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

from zsic.core.errors import IncompleteError, StoreError
from zsic.core.spec import ExecutionSpec
from zsic.pipeline.watch import Progress
from zsic.storage.lease import BEAT_S, Lease

COUNTED_FROM = 1_000
"""Images before a share of failures says something."""


class Guard:
    """Gives signs of life for a lease, and interrupts the main thread when there is a reason to stop.

    Inside the block, a `KeyboardInterrupt` that the guard has caused becomes the error it was caused for.
    """

    def __init__(self, lease: Lease, execution: ExecutionSpec) -> None:
        self._lease = lease
        self._limit = execution.max_failures
        self._reason: IncompleteError | None = None
        self._running = threading.current_thread()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._was_ignored = False

    def __enter__(self) -> Self:
        # What a script starts in the background ignores the signal, the guard's own too.
        if self._running is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._hear)
            self._was_ignored = True
        self._lease.beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended.set()
        self._thread.join()
        if self._was_ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._lease.end()
        if isinstance(error, KeyboardInterrupt) and self._reason is not None:
            raise self._reason from None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Go on ignoring the signal of others."""
        if self._reason is not None:
            raise KeyboardInterrupt

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            # A store that fails for a while fails the work as well, and says so there.
            with contextlib.suppress(StoreError):
                try:
                    self._lease.beat()
                except IncompleteError as error:
                    self.stop(error)
                    return

    def look_at(self, progress: Progress) -> None:
        """Stop the run if too much of it fails."""
        try:
            check_failures(self._limit, progress.n_rows, dict(progress.outcomes))
        except IncompleteError as error:
            self.stop(error)

    def stop(self, error: IncompleteError) -> None:
        """End the run with this error.  Python interrupts main threads only: a run in another goes on to its end."""
        main = threading.main_thread()
        with self._lock:
            if self._ended.is_set() or self._reason is not None or self._running is not main or main.ident is None:
                return
            self._reason = error
            signal.pthread_kill(main.ident, signal.SIGINT)


def check_failures(limit: str, n_rows: int, outcomes: dict[str, int]) -> None:
    """Raise `IncompleteError` if more rows failed than `execution.max_failures` allows."""
    n_failed = n_rows - outcomes.get("ok", 0)
    if limit.endswith("%"):
        too_many = n_rows >= COUNTED_FROM and n_failed > n_rows * float(limit.removesuffix("%")) / 100
    else:
        too_many = n_failed > int(limit)
    if too_many:
        reasons = ", ".join(f"{name} {n:,}" for name, n in sorted(outcomes.items()) if name != "ok")
        raise IncompleteError(
            f"{n_failed:,} of {n_rows:,} images failed ({reasons}), and execution.max_failures is {limit}.\n"
            "What is written stays, each failure with its reason in `detail`.  Mend the cause and run the same command "
            "with --max-failures 100% to finish, then with --retry-failed to take up what failed."
        )


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[Callable[[], None]]:
    """Let SIGTERM, from a scheduler that stops the job or a machine that shuts down, interrupt it as Ctrl-C does.

    Yields a function to call once Ray has started: Ray installs a handler of its own, which ends the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def interrupting() -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    previous = signal.getsignal(signal.SIGTERM)
    interrupting()
    try:
        yield interrupting
    finally:
        signal.signal(signal.SIGTERM, previous)
