"""A switch that ends this process when decoding hangs in it.

A decoder that hangs in C may hold Python's lock, and then no thread of this process can do anything about it.  The
kernel can: its timer ends the process, and whoever started it may begin again.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class Deadman:
    """Ends the process by SIGALRM if something is watched and nothing watched has ended for `timeout_s`.

    One at a time in a process: there is one such timer.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._n_watched = 0

    def __enter__(self) -> Self:
        # The action is the default, to end the process, unless somebody changed it; only the main thread may ask.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        self._arm(0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is done within; in any thread, and in several at once."""
        with self._lock:
            self._n_watched += 1
            if self._n_watched == 1:
                self._arm(self._timeout_s)
        try:
            yield
        finally:
            with self._lock:
                self._n_watched -= 1
                self._arm(self._timeout_s if self._n_watched else 0)

    def _arm(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
