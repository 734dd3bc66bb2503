"""What a store really does when several create one object: tried once an output, for no documentation tells.

    OUT/_zsic/store.json          the answer
    OUT/_zsic/trial/...           what is tried with; deleted at the end

Measured: AWS, MinIO and Ceph let one creator win; Swift lets several; rclone's S3 gateway overwrites without a word.
"""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from zsic.core.errors import StoreError
from zsic.core.fingerprint import canonical
from zsic.storage.store import Store

NAME = "_zsic/store.json"
FOLDER = "_zsic/trial"
N_ROUNDS = 3
N_CREATORS = 8


def creates_atomically(store: Store, token: str) -> bool:
    """Whether one of several creators wins.  `token` makes the trial's names its own.

    Raises `StoreError` if the store overwrites objects that exist: nothing could be built on it.
    """
    known = store.read(NAME)
    if known is None:
        answer = _try(store, token)
        store.create(NAME, canonical({"creates_atomically": answer}))
        known = store.read(NAME)
    return bool(json.loads(known or b"{}").get("creates_atomically"))


def _try(store: Store, token: str) -> bool:
    names = [f"{FOLDER}/{token}-{number}" for number in range(1 + N_ROUNDS)]
    try:
        if not store.create(names[0], b"first") or store.create(names[0], b"second"):
            raise StoreError(
                f"output: {store.uri} overwrites an object although it is asked not to (If-None-Match); an output "
                "there could lose rows. Choose another store, or write to disk"
            )
        return all(_race(store, name) for name in names[1:])
    finally:
        for name in names:
            with contextlib.suppress(StoreError):
                store.delete(name)


def _race(store: Store, name: str) -> bool:
    """Whether exactly one of several creators wins, and the object is the winner's."""
    barrier = Barrier(N_CREATORS)

    def create(number: int) -> bool:
        barrier.wait()
        return store.create(name, b"%d" % number)

    with ThreadPoolExecutor(N_CREATORS) as pool:
        won = list(pool.map(create, range(N_CREATORS)))
    return won.count(True) == 1 and store.read(name) == b"%d" % won.index(True)
