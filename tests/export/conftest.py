from pathlib import Path

import pytest
from support.place import Place
from support.published import Lake, fill, publish

from zsic.core.spec import StoreSpec


@pytest.fixture(params=["disk", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """A published output on disk and on S3, its parts in another order than its shards."""
    if request.param == "disk":
        place = Place(str(tmp_path), StoreSpec(attempts=2, timeout_s=10))
    else:
        place = request.getfixturevalue("s3_place")
    fill(place)
    store, rows = publish(place.at("out"), place.at("in"), store=place.store, backwards=True)
    return Lake(place, store, rows)
