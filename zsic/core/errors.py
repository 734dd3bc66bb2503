"""Every error a user can meet, and the exit code each one means.

    ZsicError
    ├── SpecError        2  a flag, spec field or label file is wrong; nothing has run
    ├── CapacityError    2  the plan cannot make progress on this cluster
    ├── ModelError       2  the checkpoint is refused, incomplete or of an unsupported family
    ├── SourceError      2  a source cannot be listed or read at all
    ├── DifferenceError  1  `verify` found the output different from its snapshots
    ├── IncompleteError  3  the run stopped early; running the same command again resumes it
    ├── MismatchError    4  the output belongs to a job with another fingerprint
    └── StoreError       5  the output's store lacks something the job needs

Anything else that escapes is a bug and keeps its traceback.  A failed *image* is never an error: it is a row
(see `zsic.core.outcome`).

Messages name the field as the user wrote it, what is wrong, the value, and what to do:
``scoring.top_k is 10 but labels has 6; use at most 6``.
"""

from typing import ClassVar


class ZsicError(Exception):
    """Base of all errors that zsic explains instead of showing a traceback."""

    exit_code: ClassVar[int] = 2


class SpecError(ZsicError):
    """A flag, a spec field or a label file is wrong; nothing has run."""


class CapacityError(ZsicError):
    """The plan cannot make progress with the resources there are."""


class ModelError(ZsicError):
    """The checkpoint is refused, incomplete, or of a family that is not supported."""


class SourceError(ZsicError):
    """A source cannot be listed or read at all."""


class DifferenceError(ZsicError):
    """`verify` found the output different from its snapshots."""

    exit_code = 1


class IncompleteError(ZsicError):
    """The run stopped before every image had its row; the same command resumes it."""

    exit_code = 3


class MismatchError(ZsicError):
    """The output belongs to a job that would answer differently."""

    exit_code = 4


class StoreError(ZsicError):
    """The output's store is out of reach or lacks what the commit protocol needs."""

    exit_code = 5
