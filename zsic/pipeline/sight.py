"""What lies on disks must be seen by every machine that works on it; else images would be missing for some alone."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from zsic.core.errors import SourceError, SpecError
from zsic.storage.disk_store import DiskStore
from zsic.storage.output import JOB
from zsic.storage.sample import Source
from zsic.storage.store import Store
from zsic.storage.uri import local_path, scheme_of

N_WITNESSES = 8
"""Files that stand for the source: more than one, for some may be deleted while the job runs."""


@dataclass(frozen=True)
class Sight:
    """What the driver sees, for workers to compare."""

    output: Store
    witnesses: tuple[str, ...]
    """Source files that were there when the run began; none if the source is in an object store."""

    def check(self) -> None:
        """Raise `SpecError` or `SourceError`, with the machine's name, if it sees other disks than the driver does."""
        if isinstance(self.output, DiskStore) and self.output.read(JOB) is None:
            raise SpecError(
                f"output.uri: {self.output.uri} is not the same folder on {socket.gethostname()} as where the job was "
                f"started: it has no {JOB} there; use a folder that all machines share, or s3://"
            )
        if self.witnesses and not any(map(os.path.exists, self.witnesses)):
            raise SourceError(
                f"source.uris: {self.witnesses[0]} was a file where the job was started, and {socket.gethostname()} "
                "does not see it; put the images where all machines see them, under the same path, or into an "
                "object store (if it was deleted meanwhile, run it again)"
            )


def look(output: Store, sources: Iterable[Source]) -> Sight:
    """Take some of the source's files for witnesses."""
    paths = (local_path(source.uri) for source in sources if scheme_of(source.uri) == "file")
    return Sight(output, tuple([path for path in paths if os.path.exists(path)][:N_WITNESSES]))
