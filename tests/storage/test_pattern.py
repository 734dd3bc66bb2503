import fnmatch
import itertools
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.errors import SpecError
from zsic.storage.pattern import (
    compile_glob,
    expand_braces,
    glob_depth,
    has_braces,
    is_glob,
    literal_start,
    split_glob,
)


@pytest.mark.parametrize(
    "text",
    [
        "s-{00000..00012}.tar",
        "s-{8..11}.tar",
        "s-{08..11}.tar",
        "s-{5..1..2}.tar",
        "s-{-3..3..3}",
        "{a,b}{c,d}",
        "x{a,b{1..3},}y",
        "{train/{0..2},val/{0..1}}.tar",
        "{a}",
        "{}",
        "{a",
        "a}b",
        "{,}",
        "{a,b}}",
        "{{a,b}",
        "{x..y,z}",
        "plain.tar",
    ],
)
def test_braces_mean_what_they_mean_to_bash(text: str) -> None:
    shell = subprocess.run(["bash", "-c", f"printf '%s\\n' [{text}]"], capture_output=True, text=True, check=True)
    ours = [f"[{name}]" for name in expand_braces(text)]
    assert ours == shell.stdout.splitlines()
    assert has_braces(text) == (ours != [f"[{text}]"])


def test_a_range_of_any_length_streams() -> None:
    names = expand_braces("s3://b/{0..999999999999}-{a,b}.tar")
    assert list(itertools.islice(names, 3)) == ["s3://b/0-a.tar", "s3://b/0-b.tar", "s3://b/1-a.tar"]


@given(st.text("ab/{},.0", max_size=14))
def test_no_text_is_lost_in_braces(text: str) -> None:
    names = list(itertools.islice(expand_braces(text), 50))
    assert names
    if "{" not in text:
        assert names == [text]


@given(st.text("ab*?[]!-^.\\", max_size=8), st.text("ab!-^.[]\\", max_size=6))
def test_without_folders_globs_are_those_of_fnmatch(pattern: str, name: str) -> None:
    if "**" in pattern or "[^" in pattern:  # Known only to us: any folders, and `^` for `!` as in bash.
        return
    try:
        matches = compile_glob(pattern).fullmatch(name) is not None
    except SpecError:
        return  # `[b-a]`: fnmatch takes it for something that never matches.
    assert matches == fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*", "a/b", False),
        ("a?b", "a/b", False),
        ("a[/]b", "a/b", False),
        ("a[!x]b", "a/b", False),
        ("**/b", "b", True),
        ("**/b", "x/y/b", True),
        ("**/b", "xb", False),
        ("a/**/b", "a/b", True),
        ("a/**", "a/x/y", True),
        ("a/**", "ab", False),
        ("x**y", "xaay", True),
        ("x**y", "x/y", False),
        ("*.jpg", "new\nline.jpg", True),
        ("[ab", "[ab", True),
    ],
)
def test_wildcards_and_folders(pattern: str, path: str, matches: bool) -> None:
    assert (compile_glob(pattern).fullmatch(path) is not None) == matches


def test_a_bracket_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(SpecError, match=r"source\.uris: 'x\[b-a\]' is not a glob"):
        compile_glob("x[b-a]")


def test_what_is_known_of_matches_narrows_the_listing() -> None:
    assert split_glob("/a/b*/c") == ("/a", "b*/c")
    assert split_glob("/*.jpg") == ("/", "*.jpg")
    assert split_glob("s3://bucket/x?.jpg") == ("s3://bucket", "x?.jpg")
    assert literal_start("img-*/x[1].jpg") == "img-"
    assert [glob_depth(rest) for rest in ("*", "a/*/b", "**", "a/**/b", "a**")] == [1, 3, None, None, 1]
    assert is_glob("a[1]")
    assert not is_glob("a{1}")
