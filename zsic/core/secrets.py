"""Keys and passwords inside URLs, which rows, plans, logs and processes' names would show: refused, never repeated."""

import re

_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)@")
_ACCOUNT_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
"""Of Azure, where `container@account` is a name and no secret."""

ADVICE = "put them in the environment (AWS_ACCESS_KEY_ID ...)"


def holds_credentials(url: str) -> bool:
    """Whether a URL begins like `s3://KEY:SECRET@bucket`.

    >>> [holds_credentials(url) for url in ("s3://KEY:SECRET@bucket/a", "s3://bucket/a@b", "/photos/a@b")]
    [True, False, False]
    """
    found = _AUTHORITY.match(url)
    return found is not None and (found[1].lower() not in _ACCOUNT_SCHEMES or ":" in found[2])
