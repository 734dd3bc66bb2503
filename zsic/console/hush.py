"""Keeping the terminal for the job's own words: Ray's processes and its C++ core write to file descriptor 2."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from zsic.core.terminal import printable

N_TOLD = 20
"""Lines of what was held back that are shown when the run breaks."""


@contextlib.contextmanager
def hush() -> Iterator[None]:
    """Send what is written straight to descriptor 2, here and in child processes, to a temporary file.

    Python's own stderr goes on to the terminal.  If the block raises something that is not explained to the user,
    the end of the file is shown.
    """
    from zsic.core.errors import ZsicError

    sys.stderr.flush()
    terminal, python_stderr = os.dup(2), sys.stderr
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as held:
        os.dup2(held.fileno(), 2)
        sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1, encoding="utf-8", errors="replace")
        try:
            yield
        except (ZsicError, KeyboardInterrupt):
            raise
        except BaseException:
            held.seek(0, os.SEEK_SET)
            for line in held.read().splitlines()[-N_TOLD:]:
                sys.stderr.write(printable(line) + "\n")
            raise
        finally:
            sys.stderr.close()
            sys.stderr = python_stderr
            os.dup2(terminal, 2)
            os.close(terminal)
