from pathlib import Path

import pytest
from support.place import DISK_AND_S3, open_empty

from zsic.storage.store import Store


@pytest.fixture(params=DISK_AND_S3)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty output store, on disk and on an S3 server."""
    return open_empty(request, tmp_path)
