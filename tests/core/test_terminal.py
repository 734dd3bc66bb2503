import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.terminal import is_hidden, printable

# Surrogates as well: they are what undecodable bytes of a file name become.
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("cat\u202egpj.exe", r"cat\u202egpj.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("\x9b2J", r"\x9b2J"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("b\udce9.jpg", r"b\udce9.jpg"),
        ("\U000e0041", r"\U000e0041"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_or_swallow_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cat",
        "été",
        "猫 犬",
        "\u0645\u06cc\u200c\u062e\u0648",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "a\u00a0b",
        "C:\\x",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == text


@given(ANY_TEXT)
def test_the_result_hides_nothing_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not any(is_hidden(char) for char in shown)
    assert len(shown.splitlines()) <= 1


@given(ANY_TEXT)
def test_escaping_twice_changes_nothing_more(text: str) -> None:
    assert printable(printable(text)) == printable(text)
