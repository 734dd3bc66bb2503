"""A hostile output, and a browser to look at it."""

import shutil

import pytest
from support.hostile import Sample, publish


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Names, labels, columns, prompts, versions and details that try to be markup."""
    return publish(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The command of a browser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("needs Chromium on PATH")
