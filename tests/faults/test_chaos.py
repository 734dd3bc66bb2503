"""One small round of chaos; `make test-faults` and `chaos.py` itself play more."""

from pathlib import Path

import pytest
from chaos import SMALL, play

pytestmark = [pytest.mark.ray, pytest.mark.variant]


def test_whatever_is_killed_each_image_has_one_row(tmp_path: Path) -> None:
    result = play(1, 0, SMALL, tmp_path)
    assert result.verdict == "exact", result
    # On a fast machine a run may be over before a worker's turn comes.
    assert result.driver_kills + result.kills.total() > 0
    assert result.notes == []
