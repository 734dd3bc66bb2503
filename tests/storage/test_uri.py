import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.errors import SpecError
from zsic.storage.uri import canonical_uri, folder_of, local_path, local_uri, name_of, resolve, scheme_of


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ("/a/../b.jpg", "/b.jpg"),
        ("file:///a%20b.jpg", "/a b.jpg"),
        ("file://localhost/a.jpg", "/a.jpg"),
        ("S3://bucket/Key", "s3://bucket/Key"),
        ("s3://bucket//a/../b%20c", "s3://bucket//a/../b%20c"),
        ("gs://bucket/a@b", "gs://bucket/a@b"),
        ("not:a//scheme", f"{os.getcwd()}/not:a/scheme"),
    ],
)
def test_each_object_has_one_spelling(spelled: str, canonical: str) -> None:
    assert canonical_uri(spelled) == canonical
    assert canonical_uri(canonical) == canonical


@given(st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name and b"/" not in name))
def test_any_file_name_has_a_spelling_that_leads_back_to_it(name: bytes) -> None:
    if name in (b".", b".."):
        return
    path = os.fsdecode(b"/folder/" + name)
    uri = local_uri(path)
    uri.encode()
    assert local_path(uri) == path
    assert scheme_of(uri) == "file"
    assert canonical_uri(uri) == uri


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1))
def test_file_urls_of_other_programs_are_understood(name: str) -> None:
    if name not in (".", ".."):
        assert canonical_uri(Path("/folder", name).as_uri()) == f"/folder/{name}"


@pytest.mark.parametrize(
    ("uri", "folder", "resolved"),
    [
        ("a.jpg", "/lists", "/lists/a.jpg"),
        ("../a.jpg", "/lists/x", "/lists/a.jpg"),
        ("/a.jpg", "s3://bucket/lists", "/a.jpg"),
        ("s3://other/a.jpg", "/lists", "s3://other/a.jpg"),
        ("file:///a.jpg", "/lists", "/a.jpg"),
        ("a//b/./c.jpg", "s3://bucket/lists", "s3://bucket/lists/a//b/./c.jpg"),
        ("./../a.jpg", "s3://bucket/x/y", "s3://bucket/x/a.jpg"),
        ("~/a.jpg", "/lists", "/lists/~/a.jpg"),
        ("a.jpg", "/", "/a.jpg"),
        ("caf\u00e9.jpg", "file:///lists%FF", "file:///lists%FF/caf%C3%A9.jpg"),
    ],
)
def test_entries_of_manifests_are_relative_to_the_manifest(uri: str, folder: str, resolved: str) -> None:
    assert resolve(uri, folder) == resolved


def test_entries_do_not_climb_out_of_a_bucket() -> None:
    with pytest.raises(SpecError, match=r"'\.\./\.\./a\.jpg' leads out of s3://bucket"):
        resolve("../../a.jpg", "s3://bucket/x")


def test_a_spelling_splits_at_its_last_slash() -> None:
    assert (folder_of("s3://b/x/y.jpg"), name_of("s3://b/x/y.jpg")) == ("s3://b/x", "y.jpg")
    assert folder_of("/y.jpg") == "/"
