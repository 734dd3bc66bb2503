"""What a search found as one HTML file: thumbnails inside, nothing fetched, no script."""

import base64
import hashlib
from collections.abc import Sequence

import jinja2

from zsic.core.decode import DecodeError
from zsic.core.outcome import Failure
from zsic.core.spec import DecodeSpec
from zsic.core.terminal import printable
from zsic.core.thumbnail import make_thumbnail
from zsic.search.searching import Found, Hit
from zsic.storage.originals import Originals

SIDE = 240
"""Pixels of a thumbnail's longer side."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid #8884; border-radius: 6px; padding: .5rem; }
img, .none { width: 100%; height: 12rem; object-fit: contain; background: #8881; border-radius: 4px; }
.none { display: flex; align-items: center; justify-content: center; text-align: center; }
figcaption { overflow-wrap: anywhere; font-size: .85em; } .dim { opacity: .7; }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{{ title }}</title><style>{{ style | safe }}</style></head><body>
<h1>{{ title }}</h1>
{% for found in founds %}<h2>{{ found.query | show }}</h2>
<div class="hits">
{% for hit in found.hits %}<figure>
{% set picture = pictures[hit.id] %}{% if picture.src %}<img src="{{ picture.src }}" alt="{{ hit.uri | show }}">
{% else %}<div class="none">{{ picture.reason | show }}</div>
{% endif %}<figcaption>{{ hit.rank }}. {{ "%.4f" | format(hit.similarity) }}
{% if hit.label is not none %}<b>{{ hit.label | show }}</b>{% endif %}
<div class="dim">{{ hit.uri | show }}{% if hit.key is not none %}: {{ hit.key | show }}{% endif %}</div></figcaption>
</figure>
{% endfor %}</div>
{% endfor %}</body></html>
"""


def render_gallery(founds: Sequence[Found], originals: Originals, decode: DecodeSpec, title: str) -> str:
    """Give the page.  Images are read from the source once more; what is not to be had says why in its place."""
    hits = {hit.id: hit for found in founds for hit in found.hits}
    pictures = {
        hit.id: _to_picture(answer, decode) for hit, answer in originals.read(sorted(hits.values(), key=_by_source))
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["show"] = printable
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.from_string(_PAGE).render(
        founds=founds, pictures=pictures, policy=policy, style=_STYLE, title=printable(title)
    )


def _by_source(hit: Hit) -> tuple[str, int]:
    return hit.uri, hit.id


def _to_picture(answer: bytes | Failure, decode: DecodeSpec) -> dict[str, str]:
    if isinstance(answer, Failure):
        return {"src": "", "reason": f"{answer.outcome}: {answer.detail}"}
    try:
        data = make_thumbnail(answer, decode, SIDE)
    except DecodeError as error:
        return {"src": "", "reason": str(error)}
    return {"src": f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", "reason": ""}
