"""The switch that ends a process in which decoding hangs, tried in processes that may end."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

HANG = "ctypes.PyDLL(None).sleep(1000)"  # in C, with Python's lock held


def run(*programs: str) -> list[int]:
    """Run programs side by side; gives their exit codes."""
    head = "import ctypes, signal, time\nfrom threading import Thread\nfrom zsic.core.deadman import Deadman\n"
    running = [subprocess.Popen([sys.executable, "-c", head + textwrap.dedent(each)]) for each in programs]
    try:
        return [each.wait(timeout=30) for each in running]
    finally:
        for each in running:
            each.kill()


@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGALRM, signal.SIG_IGN)"])
def test_a_hang_ends_the_process(before: str) -> None:
    began = time.monotonic()
    (code,) = run(f"""
        {before}
        def decode():
            with deadman.watching():
                {HANG}

        with Deadman(0.3) as deadman:
            thread = Thread(target=decode)
            thread.start()
            thread.join()
    """)
    assert code == -signal.SIGALRM
    assert time.monotonic() - began < 10


def test_one_that_hangs_is_noticed_once_the_others_are_done() -> None:
    (code,) = run("""
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
    something_ends = """
        def decode(seconds):
            with deadman.watching():
                time.sleep(seconds)

        with Deadman(1) as deadman:
            threads = [Thread(target=decode, args=(at * 0.5,)) for at in range(1, 4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            time.sleep(1.2)
    """
    an_error_ends_it = """
        with Deadman(1) as deadman:
            try:
                with deadman.watching():
                    raise ValueError
            except ValueError:
                time.sleep(1.2)
    """
    the_switch_is_off = """
        try:
            with Deadman(1) as deadman:
                watching = deadman.watching()
                watching.__enter__()
                raise ValueError
        except ValueError:
            time.sleep(1.2)
    """
    assert run(something_ends, an_error_ends_it, the_switch_is_off) == [0, 0, 0]
