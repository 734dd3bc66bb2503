"""Which characters a terminal obeys, or swallows, instead of showing them."""

from unicodedata import category

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
"""Invisible as well, but Persian, the Indic scripts and emoji cannot be written without them."""


def is_hidden(char: str) -> bool:
    """Whether a character moves, reverses or hides text: controls, bidi marks, zero widths, surrogates."""
    return category(char) in _HIDDEN_CATEGORIES and char not in _JOINERS


def printable(text: str) -> str:
    r"""Show hidden characters as escapes, so that a name from outside can do nothing to a terminal.

    Everything else stays as it is; the result is one line, and can be encoded.  It is meant for eyes: a
    backslash of the text itself is not escaped, so the text cannot be won back.

    >>> printable("cat\x1b[2J.jpg")
    'cat\\x1b[2J.jpg'
    """
    if text.isprintable():
        return text
    return "".join(char.encode("unicode_escape").decode("ascii") if is_hidden(char) else char for char in text)
