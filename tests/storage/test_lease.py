"""Who is at work, and who may take over."""

import json
import subprocess
import sys

import pytest
from support.crashpoints import Hours

from zsic.core.errors import IncompleteError, StoreError
from zsic.storage.disk_store import DiskStore
from zsic.storage.lease import FOLDER, SILENCE_S, OvertakenError, describe_holder, take_lease
from zsic.storage.store import Store
from zsic.storage.trial import creates_atomically


class Beating(Hours):
    """Time during which a holder gives signs of life, every so many seconds."""

    def __init__(self, every_s: float, beat: object) -> None:
        self._every_s = every_s
        self._beat = beat
        self._next = every_s

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.now >= self._next:
            self._next += self._every_s
            self._beat()  # type: ignore[operator]


def test_one_after_the_other(store: Store) -> None:
    first = take_lease(store, describe_holder("a"))
    first.beat()
    first.beat()
    first.end()
    second = take_lease(store, describe_holder("b"), clock=_NoTime())
    assert (first.number, second.number) == (1, 2)
    second.beat()
    second.beat()
    # What is left of leases does not grow: the last two, and one sign of life.
    names = [name.rpartition("/")[2] for name, _ in store.list(FOLDER)]
    assert names == [
        "00000001.beat-00000002",
        "00000001.end",
        "00000001.json",
        "00000002.beat-00000002",
        "00000002.json",
    ]
    second.end()
    take_lease(store, describe_holder("c"), clock=_NoTime())
    assert not any("00000001" in name for name, _ in store.list(FOLDER))


class _NoTime(Hours):
    def sleep(self, seconds: float) -> None:
        raise AssertionError("somebody waited")


def test_a_holder_that_gives_signs_of_life_is_not_disturbed(store: Store) -> None:
    holder = take_lease(store, describe_holder("a"))
    clock = Beating(20, holder.beat)
    told: list[str] = []
    with pytest.raises(IncompleteError, match=r"another run is at work on .*process"):
        take_lease(store, describe_holder("b"), clock=clock, tell=told.append)
    assert 20 <= clock.now < 30
    assert "waiting up to 60 s" in told[0]
    holder.beat()


def test_a_silent_holder_is_overtaken_and_hears_of_it(store: Store) -> None:
    holder = take_lease(store, describe_holder("a"))
    holder.beat()
    clock = Hours()
    second = take_lease(store, describe_holder("b"), clock=clock)
    assert SILENCE_S <= clock.now < SILENCE_S + 10
    with pytest.raises(OvertakenError, match="its lease is 2, ours 1"):
        holder.beat()
    second.beat()


def test_a_dead_process_of_this_machine_is_overtaken_at_once(store: Store) -> None:
    code = "import json; from zsic.storage.lease import describe_holder; print(json.dumps(describe_holder('dead')))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    take_lease(store, json.loads(told))
    assert take_lease(store, describe_holder("b"), clock=_NoTime()).number == 2


def test_a_process_whose_number_another_one_has_now_is_overtaken_at_once(store: Store) -> None:
    take_lease(store, describe_holder("a") | {"started": "1"})
    assert take_lease(store, describe_holder("b"), clock=_NoTime()).number == 2


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_a_process_elsewhere_is_waited_for(store: Store, field: str) -> None:
    take_lease(store, describe_holder("a") | {"pid": 2**22 + 1, field: "elsewhere"})
    clock = Hours()
    take_lease(store, describe_holder("b"), clock=clock)
    assert clock.now >= SILENCE_S


def test_of_two_that_ask_at_once_one_is_refused(store: Store) -> None:
    class Racing(Hours):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now >= SILENCE_S:
                store.create(f"{FOLDER}/00000002.json", b'{"pid": 7, "host": "h"}')

    take_lease(store, describe_holder("a"))
    with pytest.raises(IncompleteError, match="process 7 on h"):
        take_lease(store, describe_holder("b"), clock=Racing())


def test_where_creators_can_both_win_the_stored_one_has_it(tmp_path: object) -> None:
    class Overwriting(DiskStore):
        """What Swift does to two creators at the same moment."""

        def create(self, name: str, data: bytes) -> bool:
            (self.root / name).unlink(missing_ok=True)
            return super().create(name, data)

    class Racing(Hours):
        def sleep(self, seconds: float) -> None:
            store.create(f"{FOLDER}/00000001.json", b'{"pid": 7, "host": "h"}')

    store = Overwriting(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(IncompleteError, match="process 7 on h"):
        take_lease(store, describe_holder("a"), atomic=False, clock=Racing())


def test_stores_are_tried_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert creates_atomically(store, "t")
    assert list(store.list("_zsic/trial")) == []
    monkeypatch.setattr(type(store), "create", lambda *_: pytest.fail("tried again"))
    assert creates_atomically(store, "t")


def test_a_store_that_lets_several_win_is_known(tmp_path: object) -> None:
    class Racy(DiskStore):
        def create(self, name: str, data: bytes) -> bool:
            return super().create(name, data) or ("trial" in name and data != b"second")

    assert not creates_atomically(Racy(tmp_path), "t")  # type: ignore[arg-type]
    assert json.loads(Racy(tmp_path).read("_zsic/store.json") or b"") == {"creates_atomically": False}  # type: ignore[arg-type]


def test_a_store_that_overwrites_is_refused(tmp_path: object) -> None:
    class Overwriting(DiskStore):
        def create(self, name: str, data: bytes) -> bool:
            self.delete(name)
            return super().create(name, data)

    store = Overwriting(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"overwrites an object although"):
        creates_atomically(store, "t")
    assert store.read("_zsic/store.json") is None
