"""`search`: what was found as a table, as JSON, or as a page with thumbnails."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsic.console.words import err, out, show_json, show_table
from zsic.core.errors import SpecError
from zsic.core.secrets import ADVICE, holds_credentials
from zsic.core.spec import StoreSpec
from zsic.core.terminal import printable

if TYPE_CHECKING:
    from zsic.search import Found, SearchSpec


def search(given: Mapping[str, Any], store: Mapping[str, Any], *, as_json: bool, gallery: Path | None) -> None:
    """Print what an output has that is like texts and pictures; with `gallery`, write a page of it too."""
    for name, url in {"OUT": given["output"], "--s3-endpoint-url": store.get("s3_endpoint_url")}.items():
        if url and holds_credentials(url):
            raise SpecError(f"{name}: a URL holds credentials; {ADVICE}")
    from zsic.search import SearchSpec
    from zsic.search import search as find

    spec = SearchSpec(**given, store=StoreSpec(**store))
    founds = find(spec)
    if as_json:
        show_json([asdict(found) for found in founds])
    else:
        _show_founds(founds)
    if gallery is not None:
        _write_gallery(founds, spec, gallery)


def _show_founds(founds: "Sequence[Found]") -> None:
    for found in founds:
        if len(founds) > 1:
            out.print(printable(found.query), style="bold", markup=False)
        rows = [(hit.rank, f"{hit.similarity:.4f}", hit.uri, hit.key, hit.label) for hit in found.hits]
        show_table(["rank", "similarity", "uri", "key", "label"], rows, right=(0, 1))
        if len(founds) > 1:
            out.print()


def _write_gallery(founds: "Sequence[Found]", spec: "SearchSpec", path: Path) -> None:
    from zsic.search.gallery import render_gallery
    from zsic.search.queries import read_decode
    from zsic.storage.objects import Objects
    from zsic.storage.originals import Originals
    from zsic.storage.store import open_store
    from zsic.storage.table import open_table

    store = open_store(spec.output.rstrip("/"), spec.store)
    page = render_gallery(
        founds, Originals(store, Objects(spec.store)), read_decode(open_table(store)), f"Search in {store.uri}"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"--gallery: {path}: {error.strerror}") from None
    err.print(f"the page is {printable(str(path))}", style="dim", markup=False)
