"""What braces and wildcards in a source's spelling mean."""

import re
from collections.abc import Iterator

from zsic.core.errors import SpecError

_WILD = re.compile(r"[*?\[]")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")


def is_glob(text: str) -> bool:
    """Whether there is a wildcard in it."""
    return _WILD.search(text) is not None


def split_glob(pattern: str) -> tuple[str, str]:
    """Split into the folder that holds no wildcard and the rest.

    >>> split_glob("s3://bucket/2024-*/img?.jpg")
    ('s3://bucket', '2024-*/img?.jpg')
    """
    wild = _WILD.search(pattern)
    cut = pattern.rfind("/", 0, wild.start() if wild else len(pattern))
    return pattern[:cut] or "/" if cut >= 0 else ".", pattern[cut + 1 :]


def literal_start(rest: str) -> str:
    """Return how every match of a pattern begins."""
    wild = _WILD.search(rest)
    return rest[: wild.start()] if wild else rest


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile a pattern for paths: `*` and `?` stay within a folder, `**/` is any number of folders, or none.

    Raises `SpecError` for a bracket that makes no sense.

    >>> [bool(compile_glob(glob).fullmatch("a/x.jpg")) for glob in ("a/**/*.jpg", "*.jpg", "**")]
    [True, False, True]
    """
    parts = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            parts.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at) and at + 2 == len(pattern) and (at == 0 or pattern[at - 1] == "/"):
            parts.append(".*")
            at += 2
        else:
            piece, at = _translate(pattern, at)
            parts.append(piece)
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise SpecError(f"source.uris: {pattern!r} is not a glob: {error}") from None


def glob_depth(rest: str) -> int | None:
    """Return how many levels down the matches of a pattern are; None is any."""
    return None if "**" in rest.split("/") else rest.count("/") + 1


def _translate(pattern: str, at: int) -> tuple[str, int]:
    """One character, wildcard or bracket, as a regular expression, and where the next begins."""
    match pattern[at]:
        case "*":
            return "[^/]*", at + 1
        case "?":
            return "[^/]", at + 1
        case "[":
            end = pattern.find("]", at + 2 if pattern[at + 1 : at + 2] not in ("!", "^") else at + 3)
            if end < 0:
                return re.escape("["), at + 1
            inside = pattern[at + 1 : end]
            negated = inside[0] in "!^"
            letters = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside[1:] if negated else inside)
            return f"(?!/)[{'^' if negated else ''}{letters}]", end + 1
        case letter:
            return re.escape(letter), at + 1


def expand_braces(text: str) -> Iterator[str]:
    """Expand `{a,b}` lists and `{00000..00099}` ranges as WebDataset and bash do; other braces stay.

    The leftmost brace varies slowest.  Streams: a range of a million shards holds one.

    >>> list(expand_braces("s3://b/{train,val}-{08..10}.tar"))[2:4]
    ['s3://b/train-10.tar', 's3://b/val-08.tar']
    """
    at = 0
    while (start := text.find("{", at)) >= 0:
        end = _closing(text, start)
        if end is None:
            at = start + 1
            continue
        choices = _choices(text[start + 1 : end])
        if choices is None:
            at = start + 1
            continue
        for choice in choices:
            for tail in expand_braces(text[end + 1 :]):
                yield text[:start] + choice + tail
        return
    yield text


def has_braces(text: str) -> bool:
    """Whether there is something to expand."""
    return next(expand_braces(text)) != text


def _closing(text: str, start: int) -> int | None:
    depth = 0
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return None


def _choices(inside: str) -> Iterator[str] | None:
    """What one pair of braces stands for; None if it is only a pair of braces."""
    if numbers := _RANGE.fullmatch(inside):
        return _count(numbers[1], numbers[2], numbers[3])
    pieces = _split(inside)
    if len(pieces) < 2:
        return None
    return (choice for piece in pieces for choice in expand_braces(piece))


def _count(first: str, last: str, step: str | None) -> Iterator[str]:
    """Count up or down, as wide as the wider end if either is padded with zeros."""
    start, stop = int(first), int(last)
    by = abs(int(step or 1)) or 1
    padded = any(len(number.lstrip("-")) > 1 and number.lstrip("-")[0] == "0" for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    for number in range(start, stop + 1, by) if start <= stop else range(start, stop - 1, -by):
        yield f"{number:0{width}d}"


def _split(inside: str) -> list[str]:
    """Split at the commas that no inner brace holds."""
    pieces, depth, at = [], 0, 0
    for position, letter in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            pieces.append(inside[at:position])
            at = position + 1
    return [*pieces, inside[at:]]
