"""What decides an answer, as one short hash, so that an output never mixes two kinds of answers."""

import hashlib
import json
from collections.abc import Mapping


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def six_digits(value: float) -> float:
    """As much of a number that was stated or learnt as is kept, so that it is digested as it is used."""
    return float(f"{value:.6g}")


def fingerprint(fields: Mapping[str, object]) -> str:
    """16 hex digits of the SHA-256 of the canonical fields.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical(fields)).hexdigest()[:16]


def differences(ours: Mapping[str, object], theirs: Mapping[str, object], prefix: str = "") -> list[str]:
    """Name each field that differs, with both values, as `decode.mode: this run 'pil', the output 'exact'`."""
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(key), theirs.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}: this run {left!r}, the output {right!r}")
    return found
