"""Delta tables as files of a log: how one is opened, where it lies, and what its library's errors say.

`deltalake` is an extra and is imported late.  Its own retries are off: it reports, and `persist` tries again.
"""

import importlib.util
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from zsic.core.errors import SpecError
from zsic.core.spec import StoreSpec
from zsic.storage.uri import local_path, scheme_of

if TYPE_CHECKING:
    from botocore.session import Session
    from deltalake import DeltaTable

LOG = "_delta_log"
"""The folder that makes a Delta table of the folder it lies in."""
_PACKAGE = "deltalake"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def require_deltalake(what: str) -> None:
    """Raise `SpecError`, which begins with what needs it, where the package of the extra is not installed."""
    if importlib.util.find_spec(_PACKAGE) is None:
        raise SpecError(
            f"{what} needs {_PACKAGE}; install it: pip install -c constraints.txt '.[delta]' (in zsic's repository)"
        )


def open_delta(uri: str, spec: StoreSpec, *, anonymous: bool = False) -> "DeltaTable | None":
    """The table as it is now; None if there is none.  Raises `DeltaError` and `OSError`."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        return DeltaTable(location(uri), storage_options=storage_options(uri, spec, anonymous))
    except TableNotFoundError:
        return None


def location(uri: str) -> str:
    """Spell a folder for deltalake, which takes URLs to be percent-encoded where zsic takes keys letter by letter.

    Raises `SpecError` for a name with a `%`: 1.6 decodes it once when it writes, and twice when it reads.
    """
    if "%" in uri:
        raise SpecError(f"{uri} cannot be a Delta table: deltalake does not find a folder with a % in its name")
    if scheme_of(uri) == "file":
        return local_path(uri)
    return f"s3://{quote(uri.partition('://')[2])}"


def storage_options(uri: str, spec: StoreSpec, anonymous: bool = False) -> dict[str, str] | None:
    """How deltalake reaches the store: the endpoint, region and credentials that s3fs would find, and our deadlines.

    They stay in this process: nothing of them is written to the table.
    """
    if scheme_of(uri) == "file":
        return None
    session, endpoint = _open_session(spec.s3_endpoint_url, os.getpid())
    options = {
        "timeout": f"{spec.timeout_s:g}s",
        "connect_timeout": f"{spec.timeout_s:g}s",
        "max_retries": "0",
        "aws_region": session.get_config_variable("region") or "us-east-1",
    }
    if not endpoint.endswith(".amazonaws.com"):
        options |= {"aws_endpoint_url": endpoint, "aws_allow_http": str(endpoint.startswith("http://")).lower()}
    credentials = None if anonymous else session.get_credentials()
    if credentials is None:
        return options | {"aws_skip_signature": "true"}
    frozen = credentials.get_frozen_credentials()
    options |= {"aws_access_key_id": frozen.access_key, "aws_secret_access_key": frozen.secret_key}
    return options | ({"aws_session_token": frozen.token} if frozen.token else {})


@lru_cache(maxsize=8)
def _open_session(endpoint_url: str | None, process: int) -> tuple["Session", str]:
    """What finds credentials, and renews them; and the endpoint that botocore makes of ours, or of the environment.

    Once a process: it takes 0.1 to 0.4 s.
    """
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    client = session.create_client("s3", endpoint_url=endpoint_url, config=Config(signature_version=UNSIGNED))
    endpoint: str = client.meta.endpoint_url
    return session, endpoint


def list_paths(table: "DeltaTable") -> dict[str, int]:
    """The files that are the table, seen from its folder, and their bytes."""
    actions = table.get_add_actions()
    paths, sizes = actions.column("path").to_pylist(), actions.column("size_bytes").to_pylist()
    return {unquote(path): n_bytes for path, n_bytes in zip(paths, sizes, strict=True)}


def explain(error: Exception) -> str:
    """What an error of deltalake says, on one line: its own text is a coloured tree."""
    text = _COLOURS.sub("", str(error)).replace("↳", ":")
    return " ".join(text.split())[:300]
