"""How objects are spelled: absolute paths on disk, `scheme://...` everywhere else."""

import os
import re
from urllib.parse import quote, unquote_to_bytes

from zsic.core.errors import SpecError
from zsic.core.secrets import ADVICE, holds_credentials

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_CHAINED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*::.*://", re.DOTALL)
"""As fsspec spells an object within another: `zip://a.jpg::s3://bucket/b.zip`, `simplecache::s3://bucket/a.jpg`."""
_DATA = re.compile(r"data:[^,/]*/[^,]*,", re.IGNORECASE)


def scheme_of(uri: str) -> str:
    """Return the scheme in lower case; a plain path is `file`."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else "file"


def local_path(uri: str) -> str:
    """Return the path that a plain path or a `file://` URL (RFC 8089, percent-encoded) stands for."""
    if not _SCHEME.match(uri):
        return uri
    host, slash, path = uri.partition("://")[2].partition("/")
    if host not in ("", "localhost"):
        raise SpecError(f"{uri}: a file:// URL needs three slashes; {host!r} would be a host")
    return os.fsdecode(unquote_to_bytes(slash + path))


def local_uri(path: str) -> str:
    r"""Spell a path as rows do: absolute, as it is; only a name that is no UTF-8 becomes a `file://` URL.

    Such names (Latin-1 disks) exist, and an Arrow string cannot hold them.

    >>> local_uri("/photos/caf\udce9.jpg")
    'file:///photos/caf%E9.jpg'
    """
    path = os.path.abspath(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def canonical_uri(uri: str) -> str:
    """Spell an object as rows do: `file://` and relative paths become absolute paths, the rest stays.

    Raises `SpecError` for credentials inside the URL: rows, plans and logs would show them.
    """
    scheme = scheme_of(uri)
    if holds_credentials(uri):
        raise SpecError(f"a {scheme}:// URL holds credentials; {ADVICE}")
    if scheme == "file":
        return local_uri(local_path(uri))
    rest = uri.partition("://")[2]
    bucket = rest.partition("/")[0]
    if scheme == "s3" and not bucket:
        raise SpecError(f"{uri!r} names no bucket; write s3://BUCKET/KEY")
    return f"{scheme}://{rest}"


def folder_of(uri: str) -> str:
    """Return what comes before the last slash.

    >>> folder_of("s3://bucket/a/list.csv"), folder_of("/list.csv")
    ('s3://bucket/a', '/')
    """
    folder = uri.rpartition("/")[0]
    return folder or "/"


def name_of(uri: str) -> str:
    """Return what comes after the last slash."""
    return uri.rpartition("/")[2]


def resolve(uri: str, folder: str) -> str:
    """Spell a manifest's entry as rows do; one without a scheme or a leading slash is relative to `folder`.

    Only leading `./` and `../` are resolved in an object store, where `//` and dots are part of a key.

    >>> resolve("../images/1.jpg", "s3://bucket/lists")
    's3://bucket/images/1.jpg'
    """
    if _SCHEME.match(uri) or uri.startswith("/"):
        return canonical_uri(uri)
    if _CHAINED.match(uri) or _DATA.match(uri):
        # As relative paths they would be rows that are missing, for a reason that nobody sees.
        raise SpecError(f"{uri[:80]!r} is neither a path nor the URL of one object")
    if scheme_of(folder) == "file":
        return local_uri(os.path.join(local_path(folder), uri))
    entry = uri
    while entry.startswith(("./", "../")):
        step, _, entry = entry.partition("/")
        if step == "..":
            if folder.count("/") == 2:
                raise SpecError(f"{uri!r} leads out of {folder}")
            folder = folder_of(folder)
    return f"{folder.rstrip('/')}/{entry}"
