"""The switch that ends a process in which decoding hangs, tried in processes that may end."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

HANG = "ctypes.PyDLL(None).sleep(1000)"  # in C, with Python's lock held


def run(program: str) -> int:
    head = "import ctypes, signal, time\nfrom threading import Thread\nfrom zsic.core.deadman import Deadman\n"
    return subprocess.run([sys.executable, "-c", head + textwrap.dedent(program)], timeout=30).returncode


@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGALRM, signal.SIG_IGN)"])
def test_a_hang_ends_the_process(before: str) -> None:
    began = time.monotonic()
    code = run(f"""
        {before}
        def decode():
            with deadman.watching():
                {HANG}

        with Deadman(1) as deadman:
            thread = Thread(target=decode)
            thread.start()
            thread.join()
    """)
    assert code == -signal.SIGALRM
    assert time.monotonic() - began < 10


def test_one_that_hangs_is_noticed_once_the_others_are_done() -> None:
    code = run("""
        def decode(seconds):
            with deadman.watching():
                time.sleep(seconds)

        with Deadman(0.5) as deadman:
            threads = [Thread(target=decode, args=(seconds,)) for seconds in (0.3, 0.6, 1000)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    """)
    assert code == -signal.SIGALRM


def test_nothing_ends_while_something_does_or_nothing_is_watched() -> None:
    code = run("""
        def decode(seconds):
            with deadman.watching():
                time.sleep(seconds)

        with Deadman(1) as deadman:
            threads = [Thread(target=decode, args=(at * 0.5,)) for at in range(1, 5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            time.sleep(1.2)
            try:
                with deadman.watching():
                    raise ValueError
            except ValueError:
                time.sleep(1.2)
        try:
            with Deadman(1) as deadman:
                watching = deadman.watching()
                watching.__enter__()
                raise ValueError
        except ValueError:
            time.sleep(1.2)
    """)
    assert code == 0
