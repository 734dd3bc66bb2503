"""Images in a folder for each label: what torchvision and Hugging Face datasets read as ImageFolder.

    DIR/<label>/<name>-<ordinal>-<index>.jpg

The tree itself tells what is done: each file is named after its row, and has its name only once it is whole.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from zsic.core.errors import StoreError
from zsic.core.outcome import Failure, Outcome
from zsic.export.names import ending_of, name_file, read_id
from zsic.export.tally import Labelled, Tally
from zsic.storage.objects import map_in_order
from zsic.storage.originals import Originals
from zsic.storage.store import Store

WRITERS = 16
NO_IMAGE = Failure(Outcome.CHANGED, "is no image any more")


def write_tree(
    rows: Iterable[Labelled], originals: Originals, target: Store, folders: Mapping[str, str], tally: Tally
) -> None:
    """Write each row's image into the folder of its label; what is there stays.

    Rows come in the order of `Originals.place`.  Holds 8 bytes for each image that is there.  Raises `StoreError`.
    """
    done_N = _find_done(target, folders)

    def put(answer: tuple[Labelled, bytes | Failure]) -> tuple[Labelled, int | Failure]:
        row, data = answer
        if isinstance(data, Failure):
            return row, data
        ending = ending_of(data)
        if ending is None:
            return row, NO_IMAGE
        name = f"{folders[row.label]}/{name_file(row.id, row.uri, row.key)}{ending}"
        if not target.create(name, data):
            raise StoreError(f"--output: {target.uri}/{name} is something else; export into another folder")
        return row, len(data)

    answers = originals.read(tally.pass_over(rows, done_N))
    for row, written in map_in_order(put, answers, WRITERS, lambda answer: _weigh(answer[1])):
        if isinstance(written, Failure):
            tally.fail(row, written)
        else:
            tally.add(written)


def _weigh(data: bytes | Failure) -> int:
    return 0 if isinstance(data, Failure) else len(data)


def _find_done(target: Store, folders: Mapping[str, str]) -> npt.NDArray[np.int64]:
    """The ids of the images that are there, sorted."""
    found = [np.empty(0, np.int64)]
    for folder in folders.values():
        ids = (read_id(name.rpartition("/")[2]) for name, n_bytes in target.list(folder) if n_bytes)
        found.append(np.fromiter((each for each in ids if each is not None), np.int64))
    return np.sort(np.concatenate(found))
