"""The tar format, as a stream: headers of ustar, pax and GNU tar, and nothing that touches a disk.

Python's `tarfile` is four times slower, and before 3.11.14 loops for ever on negative sizes (CVE-2025-8194).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from zsic.storage.stream import DamageError, Stream

BLOCK = 512
MAX_NAME_BYTES = 4096
"""What a path on Linux may have; object stores allow 1024.  Every image's name is held until its shard ends."""
MAX_PAX_BYTES = 2**20
"""Of one member's extended header; real ones are a few hundred bytes."""

_REGULAR = frozenset(b"0\x007")
_WITHOUT_DATA = frozenset(b"123456")
"""Links, devices, folders, pipes: their size field, if any, counts no bytes, as in GNU tar and `tarfile`."""


_SPARSE = b"GNU.sparse."
_PAX_KEYS = frozenset((b"path", b"size", b"GNU.sparse.name"))


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file of an archive."""

    name: str
    size: int
    sparse: bool
    """The bytes are not the file's own: its holes are left out."""


def read_members(stream: Stream) -> Iterator[Member]:
    """Give each regular file; before it asks for the next, the caller may take up to `size` bytes.

    Zero blocks in the middle are passed over, so archives that were strung together are read to the last.
    Raises `DamageError` when a header is damaged, when data are cut short, and when there is no zero block at
    the end: then whoever wrote the archive did not finish it.
    """
    name: bytes | None = None
    pax: dict[bytes, bytes] = {}
    shared: dict[bytes, bytes] = {}
    finished = False
    while True:
        at = stream.position
        header = stream.take(BLOCK)
        if len(header) < BLOCK:
            if finished and not header.strip(b"\0"):
                return
            raise DamageError(f"the archive ends at byte {at + len(header)}, before its end mark")
        if not header.strip(b"\0"):
            finished = True
            continue
        finished = False
        _check_sum(header, at)
        kind, size = header[156], _number(header[124:136], at)
        match kind:
            case 0x78 | 0x58:  # x, Solaris' X: pax, for the next member
                pax |= _read_pax(stream, size, at)
                continue
            case 0x67:  # g: pax, for all that follow
                shared |= _read_pax(stream, size, at)
                continue
            case 0x4C:  # L: GNU, the name of the next member
                name = _read_block(stream, size, MAX_NAME_BYTES + 1, at).partition(b"\0")[0]
                continue
            case 0x4B:  # K: GNU, the target of the next link
                _skip(stream, _padded(size), at)
                continue
        records = {**shared, **pax} if shared or pax else {}
        if kind not in _WITHOUT_DATA and b"size" in records:
            size = _decimal(records[b"size"], at)
        if kind == 0x53:  # S: GNU, sparse; more of its map may follow the header
            _skip_map(stream, header, at)
        start = stream.position
        if kind in _REGULAR or kind == 0x53:
            raw = records.get(b"path") or name or _short_name(header)
            raw = records.get(b"GNU.sparse.name", raw)
            if len(raw) > MAX_NAME_BYTES:
                raise DamageError(f"a name of {len(raw)} bytes at byte {at}; {MAX_NAME_BYTES} are allowed")
            if not raw.endswith(b"/"):  # else a folder, as tars before ustar wrote it
                sparse = kind == 0x53 or _SPARSE in records
                yield Member(raw.decode("utf-8", "backslashreplace"), size, sparse)
        if kind not in _WITHOUT_DATA:
            _skip(stream, start + _padded(size) - stream.position, at)
        name, pax = None, {}


def _check_sum(header: bytes, at: int) -> None:
    """Compare the sum of the header's bytes, its own field read as spaces.  Old tars summed signed bytes."""
    stored = _number(header[148:156], at)
    bare = header[:148] + b"        " + header[156:]
    total = sum(bare)
    if stored != total and stored != total - 256 * sum(byte > 127 for byte in bare):
        raise DamageError(f"no tar header at byte {at}")


def _number(field: bytes, at: int) -> int:
    """Read octal digits, or GNU's base 256 for sizes from 8 GiB on.  Negative numbers are refused."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if digits and digits.strip(b"01234567"):
        raise DamageError(f"no tar header at byte {at}")
    return int(digits or b"0", 8)


def _decimal(digits: bytes, at: int) -> int:
    if not digits.isdigit() or len(digits) > 19:
        raise DamageError(f"a damaged pax header at byte {at}")
    return int(digits)


def _short_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # GNU tar ("ustar  ") keeps times where ustar keeps the start of long names.
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _read_pax(stream: Stream, size: int, at: int) -> dict[bytes, bytes]:
    """Parse records `LENGTH KEY=VALUE`, each with a line feed, the length being that of all of it.

    Keeps what is asked for: all of a shard's records, in headers for all that follow, may be any number.
    """
    data = _read_block(stream, size, MAX_PAX_BYTES, at)
    records = {}
    begin = 0
    while begin < len(data) and data[begin]:
        digits, space, _ = data[begin : begin + 20].partition(b" ")
        end = begin + (int(digits) if digits.isdigit() else 0)
        key, equals, value = data[begin + len(digits) + 1 : end - 1].partition(b"=")
        if not (space and equals and begin < end <= len(data) and data[end - 1 : end] == b"\n"):
            raise DamageError(f"a damaged pax header at byte {at}")
        if key in _PAX_KEYS:
            records[key] = value
        if key.startswith(_SPARSE):
            records[_SPARSE] = b""
        begin = end
    return records


def _read_block(stream: Stream, size: int, limit: int, at: int) -> bytes:
    if size > limit:
        raise DamageError(f"a header of {size} bytes at byte {at}; {limit} are allowed")
    data = stream.take(size)
    _skip(stream, _padded(size) - len(data), at)
    return data


def _skip_map(stream: Stream, header: bytes, at: int) -> None:
    more = header[482]
    while more:
        block = stream.take(BLOCK)
        if len(block) < BLOCK:
            raise DamageError(f"the archive ends within the member at byte {at}")
        more = block[504]


def _skip(stream: Stream, n_bytes: int, at: int) -> None:
    if stream.skip(n_bytes) < n_bytes:
        raise DamageError(f"the archive ends within the member at byte {at}")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
