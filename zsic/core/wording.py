"""Which characters a label, a template or a prompt may be written with."""

from unicodedata import name, normalize

from zsic.core.errors import SpecError
from zsic.core.terminal import is_hidden


def normalise(text: str) -> str:
    """Give equal-looking texts equal code points: composed (NFC), no white space at the ends."""
    return normalize("NFC", text).strip()


def clean(text: str, where: str) -> str:
    """Normalise a label.  Raises `SpecError`, opened by `where`, when a character in it cannot be seen."""
    cleaned = normalise(text)
    for char in cleaned:
        if is_hidden(char):
            code = f"U+{ord(char):04X} {name(char, '')}".rstrip()
            raise SpecError(f"{where}: {text!r} holds {code}, which cannot be seen; remove it")
    return cleaned


def clean_sentence(text: str, where: str) -> str:
    """Normalise a prompt or template: as a label, but any run of white space, line ends too, is one space."""
    return clean(" ".join(text.split()), where)
