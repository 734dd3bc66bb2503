"""One of several processes that work on one output at once, without Ray.

Usage, from `tests/`: `python -m support.racer URI ENDPOINT NAME VERSIONS [delta]`.

Its clock takes no time to wait, so it never believes that another run is alive, and works all the same: what the lease
would prevent is what is tried here.
"""

import random
import sys

from support.crashpoints import Hours, make_world
from support.toy import play
from zsic.core.errors import IncompleteError, StoreError
from zsic.core.spec import StoreSpec
from zsic.storage.mirror import Mirror
from zsic.storage.output import Output
from zsic.storage.store import open_store


def main(uri: str, endpoint: str, name: str, n_versions: str, publish: str = "") -> None:
    spec = StoreSpec(s3_endpoint_url=endpoint or None)
    store = open_store(uri, spec)
    rng = random.Random(name)
    world = make_world()
    for version in range(1, int(n_versions) + 1):
        # All change the world in the same way, at times of their own.
        world.things["/photos/0.jpg"].version = version
        world.things["/photos/s.tar"].version = version
        for attempt in range(6):
            try:
                play(
                    Output(
                        store,
                        Mirror(store, spec, wanted=publish == "delta"),
                        clock=Hours(),
                        token=f"{name}-{version}-{attempt}",
                    ),
                    world,
                    run=f"{name}-{version}-{attempt}",
                    rows_per_part=rng.randint(1, 4),
                )
            except (IncompleteError, StoreError):  # another one was faster
                continue
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
