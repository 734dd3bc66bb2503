from pathlib import Path

import pytest

from zsic.core.spec import StoreSpec
from zsic.storage.store import Store, open_store


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty output store, on disk and on an S3 server."""
    if request.param == "disk":
        return open_store(str(tmp_path / "out"), StoreSpec())
    endpoint, bucket = request.getfixturevalue("s3_bucket")
    return open_store(f"s3://{bucket}/some/out", StoreSpec(s3_endpoint_url=endpoint))
