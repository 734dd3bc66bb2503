from pathlib import Path

import pytest

from zsic.core.cache import cache_folder, remember


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_what_was_made_is_not_made_again() -> None:
    made: list[int] = []

    def make() -> dict[str, list[float]]:
        made.append(1)
        return {"mean": [0.1, 1 / 3]}

    for _ in range(3):
        assert remember("things", ["a", {"b": 1}], make) == {"mean": [0.1, 1 / 3]}
    assert len(made) == 1
    assert remember("things", ["a", {"b": 2}], make) == remember("others", ["a", {"b": 1}], make)
    assert len(made) == 3


def test_a_file_that_is_damaged_is_made_again() -> None:
    assert remember("things", "a", lambda: 1) == 1
    (path,) = (cache_folder() / "things").iterdir()
    path.write_text("{")
    assert remember("things", "a", lambda: 2) == 2
    assert remember("things", "a", lambda: 3) == 2


def test_what_fails_is_not_remembered() -> None:
    with pytest.raises(KeyError):
        remember("things", "a", lambda: {}["b"])
    assert remember("things", "a", lambda: None) is None


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "zsic").write_text("a file where the folder would be")
    assert [remember("things", "a", lambda: 1), remember("things", "a", lambda: 2)] == [1, 2]
