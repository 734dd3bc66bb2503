import os
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from zsic.export.names import MAX_FOLDER_BYTES, name_file, name_folders, read_id

HOSTILE = ["../x", "a/b", "a%2Fb", "a\\b", "..", ".", ".git", "x.", "x ", "", "%", "%25", "Cat", "cat", "CAT", "con:1"]
HOSTILE += [
    "x" * 300,
    "x" * 301,
    "ß" * 300,
    "猫 と 犬",
    "tab\there",
    "\x1b[2J",
    "\N{RIGHT-TO-LEFT OVERRIDE}txt",
    "a\0b",
]

labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(st.lists(labels, max_size=20))
@example(HOSTILE)
def test_folders_are_safe_and_never_two_alike(found: list[str]) -> None:
    folders = name_folders(found)
    assert folders.keys() == set(found)
    # Also where a disk does not tell cases apart.
    assert len({name.casefold() for name in folders.values()}) == len(folders)
    for name in folders.values():
        assert 0 < len(name.encode()) <= MAX_FOLDER_BYTES
        assert name == os.path.basename(name)
        assert name not in (".", "..")
        assert name.isprintable()
        assert not set(name) & set('/\\:*?"<>|\0')
        assert name[0] not in ". "
        assert name[-1] not in ". "


def test_usual_labels_stay_as_they_are() -> None:
    usual = ["red circle", "猫", "rock & roll", "A-1_b", "a, b", "l'été", "100 €"]
    assert name_folders(usual) == {label: label for label in usual}


def test_folders_can_be_made(tmp_path: Path) -> None:
    folders = name_folders(HOSTILE)
    for name in folders.values():
        (tmp_path / name).mkdir()
    assert len(list(tmp_path.iterdir())) == len(set(HOSTILE))
    assert sorted(folders.values()) != list(folders)


@given(st.integers(0, 2**62), labels, st.one_of(st.none(), labels))
@example(5, "s3://b/x.tar", "a/b-1-2.jpg#2")
@example(5, "s3://b/", "")
def test_a_file_is_named_by_its_row(row_id: int, uri: str, key: str | None) -> None:
    name = name_file(row_id, uri, key)
    assert len(name.encode()) < 200
    assert name == os.path.basename(name)
    assert "." not in name
    assert read_id(f"{name}.jpg") == row_id


def test_other_files_are_none_of_ours() -> None:
    assert [read_id(name) for name in ("x.jpg", "1-2", "a-1-b.jpg", "-.jpg", "", ".a-1-2", "a--1.jpg")] == [None] * 7
