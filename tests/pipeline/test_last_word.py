"""Ray ends a process that has lost its head or its node; the run has to be first."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from zsic.core.errors import CapacityError
from zsic.core.spec import ExecutionSpec
from zsic.pipeline.cluster import connect
from zsic.pipeline.last_word import watch


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield found
    for each in found:
        each.close()


def ended_by(
    listeners: list[socket.socket], gone: int | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], float]:
    """What the watch says when one of head and raylet goes, and after how long."""
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "4")
    head, raylet = (each.getsockname() for each in listeners)
    said: list[str] = []
    ended = threading.Event()
    thread = threading.Thread(target=watch, args=(head, raylet, ended, said.append))
    thread.start()
    time.sleep(0.7)
    began = time.monotonic()
    if gone is not None:
        listeners[gone].close()
    thread.join(4)
    seconds = time.monotonic() - began
    ended.set()
    thread.join()
    return said, seconds


def test_a_head_has_half_of_rays_own_patience(listeners: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    said, seconds = ended_by(listeners, 0, monkeypatch)
    assert said == ["the head of the Ray cluster has not answered for 2 s"]
    assert 1.5 < seconds < 4


def test_the_own_node_is_missed_at_once(listeners: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    said, seconds = ended_by(listeners, 1, monkeypatch)
    assert said == ["the Ray node of this machine is gone"]
    assert seconds < 2


def test_while_both_are_there_nothing_is_said(listeners: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended_by(listeners, None, monkeypatch)[0] == []


def test_an_address_where_nobody_listens_is_told_at_once(listeners: list[socket.socket]) -> None:
    port = listeners[0].getsockname()[1]
    listeners[0].close()
    with (
        pytest.raises(CapacityError, match=rf"execution.address '127.0.0.1:{port}' cannot be reached: "),
        connect(ExecutionSpec(address=f"127.0.0.1:{port}")),
    ):
        pass
