"""Images that do harm to their decoder, for want of real ones: the harm is in the processes, the cue in the image.

A `sitecustomize.py` on the path of a Python makes it, and every Python that it starts, obey the cues.
"""

from pathlib import Path

CRASH = b"trap: crash"
ABORT = b"trap: abort"
KILL = b"trap: kill"
EXIT = b"trap: exit"
HANG = b"trap: hang"
SPIN = b"trap: spin"
SLOW = b"trap: slow"
MEMORY = b"trap: memory"
NONSENSE = b"trap: nonsense"

LIMIT_MIB = 1273
"""What a picture may take by the default limits."""

PROGRAM = """
import ctypes, os, re, signal, stat, time

import zsic.core.decode as decode

inspect = decode.inspect


def spin():
    while True:
        pass


def nonsense():
    for fd in range(3, 1000):
        if os.path.exists(f"/proc/self/fd/{fd}") and stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, b'{"width": 1}' + bytes([10]))
    time.sleep(60)


harm = {
    b"crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    b"abort": os.abort,
    b"kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"exit": lambda: os._exit(7),
    b"hang": lambda: ctypes.PyDLL(None).sleep(1000),  # in C, and no other thread may run
    b"spin": spin,
    b"slow": lambda: time.sleep(0.7),
    b"memory": lambda: bytes(4 * 2**30),
    b"nonsense": nonsense,
}


def obey(data, spec):
    for cue in re.findall(rb"trap: (\\w+)$", data[-20:]):
        harm[cue]()
    return inspect(data, spec)


decode.inspect = obey
"""


def lay(folder: Path) -> Path:
    """Write the `sitecustomize.py`; returns the folder to put on the path."""
    path = folder / "traps"
    path.mkdir()
    (path / "sitecustomize.py").write_text(PROGRAM)
    return path
