"""A proxy before an S3 server that breaks the answers it is told to, one request at a time."""

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Act = Literal["unavailable", "error", "reset", "lose", "truncate", "stall", "trickle", "call"]

_ERROR = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%s</Code><Message>injected</Message></Error>"


@dataclass
class Rule:
    """What happens to requests whose first line matches.

    `unavailable` 503 SlowDown · `error` the status `amount` with `code` · `reset` the request never arrives ·
    `lose` it is carried out and the answer lost · `truncate` the connection breaks after `amount` bytes of body ·
    `stall` nothing more comes after `amount` bytes of body · `trickle` one byte in `amount` ms · `call` nothing but
    the `callback`, which every rule runs first.
    """

    match: str
    act: Act
    amount: int = 0
    code: str = ""
    times: int = 1_000_000
    """Matching requests that are broken; later ones pass."""
    after: int = 0
    """Matching requests that pass first."""
    callback: Callable[[], object] = lambda: None


class FaultProxy:
    """Listens on loopback in a thread of its own; one request a connection, so that each is seen."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.rules: list[Rule] = []
        self.requests: list[str] = []
        """First lines, in the order of their arrival."""
        self.match = ""
        """Requests whose first line does not match pass unseen."""
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._port = 0
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def count(self, match: str) -> int:
        """How many requests matched so far."""
        return sum(bool(re.search(match, line)) for line in self.requests)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        server.close()
        self._loop.close()

    def _pick(self, line: str) -> Rule | None:
        for rule in self.rules:
            if re.search(rule.match, line):
                if rule.after:
                    rule.after -= 1
                elif rule.times:
                    rule.times -= 1
                    return rule
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head, body = await _read_message(reader, writer)
            line = head.split(b"\r\n", 1)[0].decode("latin-1")
            seen = re.search(self.match, line) is not None
            if seen:
                self.requests.append(line)
            rule = self._pick(line) if seen else None
            await self._answer(line, head, body, rule, writer)
        writer.close()

    async def _answer(
        self, line: str, head: bytes, body: bytes, rule: Rule | None, writer: asyncio.StreamWriter
    ) -> None:
        act = rule.act if rule else None
        amount = rule.amount if rule else 0
        if rule is not None:
            rule.callback()
        if act == "reset":
            return _reset(writer)
        if act in ("unavailable", "error"):
            assert rule is not None
            status, code = (503, "SlowDown") if act == "unavailable" else (amount, rule.code)
            text = b"" if line.startswith("HEAD") else _ERROR % code.encode()
            writer.write(b"HTTP/1.1 %d Injected\r\nConnection: close\r\n" % status)
            writer.write(b"Content-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            return await writer.drain()
        answer_head, answer_body = await self._forward(head, body, is_head=line.startswith("HEAD"))
        if act == "lose":
            return _reset(writer)
        writer.write(answer_head)
        match act:
            case "truncate":
                writer.write(answer_body[:amount])
                await writer.drain()
                await asyncio.sleep(0.02)
                _reset(writer)
            case "stall":
                writer.write(answer_body[:amount])
                await writer.drain()
                await asyncio.sleep(3600)
            case "trickle":
                for at in range(len(answer_body)):
                    writer.write(answer_body[at : at + 1])
                    await writer.drain()
                    await asyncio.sleep(amount / 1000)
            case _:
                writer.write(answer_body)
                await writer.drain()

    async def _forward(self, head: bytes, body: bytes, *, is_head: bool) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(*self._server)
        try:
            writer.write(_close_after(head) + body)
            answer, content = await _read_message(reader, has_body=not is_head)
            return _close_after(answer), content
        finally:
            writer.close()


async def _read_message(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None = None, *, has_body: bool = True
) -> tuple[bytes, bytes]:
    """Head and body of a request or an answer.  The body stays as it is on the wire.

    `writer` answers a client that waits with its body until it is told to send it.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    if writer is not None and re.search(rb"(?i)\r\nexpect: *100-continue", head):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if head.startswith(b"HTTP/1.1 100"):
        return await _read_message(reader, has_body=has_body)
    if not has_body:
        return head, b""
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            size = await reader.readuntil(b"\r\n")
            body += size + await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        return head, body
    return head, await reader.readexactly(int(length[1])) if length else b""


def _close_after(head: bytes) -> bytes:
    kept = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection as a dead server does: RST, not FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
