"""What a driver and a task get out of a store on S3: keys listed, and loose images read, a second.

    python benchmarks/store.py [--keys 1000000] [--images 3000] [--delay-ms 0,30,100] [--write]

The server is made up: it gives pages of 1,000 keys and one photograph under every key, each answer after a delay, and
can do more than the client.  So the figures are the client's, and the delay stands for a store's.  A real store takes
30 to 200 ms for a page or a first byte.

- `listing`: one after the other, for a page names the next.
- `reading`: as one decode task does it, 32 at a time; every body is compared with what was sent.
"""

import argparse
import asyncio
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

from measure import machine, python, write_results
from pictures import draw_shard, read_shard

from zsic.core.spec import StoreSpec
from zsic.storage.access import ObjectInfo
from zsic.storage.objects import Objects

PAGE = 1_000
# A listing holds a page; an image that is read costs less than decoding it does.
MOST_CPU_MS, MOST_GROWTH_MIB = 2.0, 50


async def serve(n_keys: int, body: bytes, delay_s: float) -> None:
    """Answer until the process is ended; its port is the first line of output."""
    etag = '"00000000000000000000000000000001"'

    def page(query: dict[str, list[str]]) -> bytes:
        begin = int(query.get("continuation-token", ["0"])[0])
        stop = min(begin + PAGE, n_keys)
        entries = "".join(
            f"<Contents><Key>photos/{at:012}.jpg</Key><LastModified>2026-11-26T00:00:00.000Z</LastModified>"
            f"<ETag>{etag}</ETag><Size>{len(body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for at in range(begin, stop)
        )
        more = f"<NextContinuationToken>{stop}</NextContinuationToken>" if stop < n_keys else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>b</Name><IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{entries}</ListBucketResult>"
        ).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                _, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                query = parse_qs(urlsplit(unquote(path)).query)
                content, kind = (page(query), "application/xml") if "list-type" in query else (body, "image/jpeg")
                status, extra = "200 OK", ""
                if (asked := re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d*)", head)) and kind == "image/jpeg":
                    first, last = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
                    content, status = body[first : last + 1], "206 Partial Content"
                    extra = f"Content-Range: bytes {first}-{last}/{len(body)}\r\n"
                if delay_s:
                    await asyncio.sleep(delay_s)
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nETag: {etag}\r\n{extra}"
                    f"Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                    + content
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def photograph() -> bytes:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.tar")
        draw_shard(path, 1)
        return next(data for _, data in read_shard(path))


def list_all(objects: Objects, n_keys: int) -> tuple[float, float, float]:
    """Wall and CPU seconds, and MiB that memory grew by."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    n = sum(1 for _ in objects.list("s3://b/photos"))
    spent = time.perf_counter() - started, time.process_time() - cpu
    assert n == n_keys, n
    return *spent, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def read_all(objects: Objects, n_images: int, body: bytes) -> tuple[float, float]:
    infos = [
        ObjectInfo(f"s3://b/photos/{at:012}.jpg", len(body), "00000000000000000000000000000001", None)
        for at in range(n_images)
    ]
    started, cpu = time.perf_counter(), time.process_time()
    answers: Iterator[object] = objects.read_many(iter(infos), max_bytes=10**9)
    assert sum(answer == body for answer in answers) == n_images
    return time.perf_counter() - started, time.process_time() - cpu


def measure(options: argparse.Namespace) -> list[str]:
    body = photograph()
    os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
    lines = ["| an answer takes | images read/s by one task | CPU ms an image |", "|---|---|---|"]
    listed = ""
    for delay in options.delay_ms.split(","):
        serving = ["--serve", "--keys", options.keys, "--delay-ms", delay]
        with subprocess.Popen(python(__file__, *serving), stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            objects = Objects(StoreSpec(s3_endpoint_url=f"http://127.0.0.1:{int(server.stdout.readline())}"))
            read_all(objects, 64, body)
            wall, cpu = read_all(objects, options.images, body)
            if (cpu_ms := cpu / options.images * 1e3) > MOST_CPU_MS:
                raise SystemExit(f"reading an image takes {cpu_ms:.2f} CPU ms, more than {MOST_CPU_MS}")
            lines.append(f"| {delay} ms | {options.images / wall:,.0f} | {cpu / options.images * 1e3:.2f} |")
            if not listed:
                wall, cpu, grown = list_all(objects, options.keys)
                if grown > MOST_GROWTH_MIB:
                    raise SystemExit(f"a listing grows memory by {grown:.0f} MiB, more than {MOST_GROWTH_MIB}")
                listed = (
                    f"Listing {options.keys:,} keys at {delay} ms a page: {options.keys / wall:,.0f} a second, "
                    f"{cpu / options.keys * 1e6:.0f} CPU microseconds each; memory grew by {grown:.0f} MiB."
                )
            server.terminate()
        print(lines[-1], file=sys.stderr)
    return [listed, "", *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=3_000)
    parser.add_argument("--delay-ms", default="0,30,100")
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.keys, photograph(), float(options.delay_ms) / 1e3))
        return
    n = f"{options.keys:,} keys, {options.images:,} images of {len(photograph()) // 1024} KiB"
    text = "\n".join(
        ["# Sources from a store on S3", "", f"`benchmarks/store.py`; {n}; {machine()}.", "", *measure(options), ""]
    )
    print(text)
    if options.write:
        print(write_results("store", text))


if __name__ == "__main__":
    main()
