from pathlib import Path

import pytest
from support.place import DISK_FIRST, open_place
from support.published import Lake, fill, publish


@pytest.fixture(params=DISK_FIRST)
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """A published output, its parts in another order than its shards."""
    place = open_place(request, tmp_path)
    fill(place)
    store, rows = publish(place.at("out"), place.at("in"), store=place.store, backwards=True)
    return Lake(place, store, rows)
