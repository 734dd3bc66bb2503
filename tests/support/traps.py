"""Images that do harm to their decoder, for want of real ones: the harm is in the processes, the cue in the image.

A `sitecustomize.py` on the path of a Python makes it, and every Python that it starts, obey the cues.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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

_HARM = """
import ctypes, os, re, signal, stat, sys, time
from importlib.machinery import PathFinder


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
    b"slow": lambda: time.sleep(SLOW_S),
    b"memory": lambda: bytes(4 * 2**30),
    b"nonsense": nonsense,
}


def make_obedient(inspect):
    def obey(data, spec):
        for cue in re.findall(rb"trap: (\\w+)$", data[-20:]):
            harm[cue]()
        return inspect(data, spec)

    return obey
"""

_FINDER = """
class Finder(PathFinder):
    # Processes that never decode do not pay for the import.
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "zsic.core.decode":
            return None
        spec = super().find_spec(name, path, target)
        load = spec.loader.exec_module

        def load_and_obey(module):
            load(module)
            module.inspect = make_obedient(module.inspect)

        spec.loader.exec_module = load_and_obey
        return spec


sys.meta_path.insert(0, Finder)
"""


def lay(folder: Path, *, slow_s: float = 0.7) -> Path:
    """Write the `sitecustomize.py` into a new folder, and return it to put on the path.

    `slow_s` are the seconds that an image with the cue `SLOW` takes.
    """
    path = folder / f"traps-{slow_s:g}"
    path.mkdir()
    (path / "sitecustomize.py").write_text(f"SLOW_S = {slow_s}\n{_HARM}{_FINDER}")
    return path


def make_obedient(inspect: Callable[..., Any]) -> Callable[..., Any]:
    """Make `zsic.core.decode.inspect` obey the cues in this process, and in those that are forked from it."""
    names: dict[str, Any] = {"SLOW_S": 0.7}
    exec(_HARM, names)
    obedient: Callable[..., Any] = names["make_obedient"](inspect)
    return obedient
