"""What a real browser makes of the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser
from support.hostile import BREAKOUT, IMAGE, LABELS, MARKER, Sample

from zsic.report import render

pytestmark = [pytest.mark.browser, pytest.mark.variant, pytest.mark.xdist_group("browser")]

SHOWN = "[...document.querySelectorAll('.card')].filter(each => !each.hidden)"


@pytest.fixture(scope="module")
def path(hostile: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("page") / "report.html"
    written.write_text(render(hostile.report), encoding="utf-8")
    return written


@pytest.fixture(scope="module")
def browser(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(chromium, tmp_path_factory.mktemp("chromium")) as made:
        yield made


def set_field(browser: Browser, name: str, value: str) -> None:
    browser.look(
        f"""(() => {{
          const field = document.querySelector('.filters').elements[{name!r}];
          field.value = {value!r};
          const changed = field instanceof RadioNodeList ? document.querySelector(`[name={name}]:checked`) : field;
          changed.dispatchEvent(new Event('input', {{bubbles: true}}));
        }})()"""
    )


def test_hostile_names_show_as_text_and_nothing_is_fetched(browser: Browser, path: Path) -> None:
    browser.requests.clear()
    browser.complaints.clear()
    browser.show(path)
    words = browser.look("document.body.innerText")
    for name in (IMAGE, LABELS[0], LABELS[2]):
        assert name in words
    assert BREAKOUT in browser.look("document.getElementById('run').textContent")
    assert MARKER not in browser.look("document.title").replace(str(path), "")
    # Every picture a card has, drawn; and nothing that a name made.
    n_pictures = browser.look("document.querySelectorAll('.card img').length")
    assert n_pictures == 12
    # Pictures are lazy: bring each into view.
    browser.look("document.querySelectorAll('img').forEach(each => { each.loading = 'eager'; })")
    browser.look("Promise.all([...document.images].map(each => each.decode()))")
    assert browser.look("[...document.images].every(each => each.naturalWidth > 50)")
    for card in browser.look(f"{SHOWN}.map(each => each.dataset.id)"):
        browser.look(f"document.querySelector('#card-{card} .open').click()")
        assert browser.look("document.getElementById('closer').open")
        browser.look("document.getElementById('closer').close()")
    assert browser.look("document.scripts.length") == 2
    asked = [url for url in browser.requests if not url.startswith("data:image/jpeg;base64,")]
    assert set(asked) <= {path.as_uri(), "about:blank"}
    assert browser.complaints == []


def test_the_policy_stops_what_would_get_through(browser: Browser, path: Path) -> None:
    browser.requests.clear()
    browser.show(path)
    browser.complaints.clear()
    browser.look(
        """new Promise(done => {
          const markup = '<img src="http://127.0.0.1:9/a.png" onerror="document.title=1">';
          document.body.insertAdjacentHTML('beforeend', markup);
          const script = document.createElement('script');
          script.textContent = 'document.title = "run"';
          document.body.append(script);
          fetch('http://127.0.0.1:9/b').catch(() => setTimeout(done, 200));
        })"""
    )
    assert browser.look("document.title") not in ("1", "run")
    assert len(browser.complaints) >= 3
    assert all("Content Security Policy" in each for each in browser.complaints)


def test_cards_are_filtered(browser: Browser, path: Path, hostile: Sample) -> None:
    browser.show(path)
    cards = hostile.report.cards
    assert browser.look(f"{SHOWN}.length") == len(cards)
    for name, value, expected in (
        ("kind", "mistake", [card.id for card in cards if "mistake" in card.kinds]),
        ("label", LABELS[1], [card.id for card in cards if card.label == LABELS[1]]),
        ("label", "none of these", [card.id for card in cards if card.outcome == "ok" and card.label is None]),
        ("truth", LABELS[0], [card.id for card in cards if card.truth == (LABELS[0],)]),
        ("outcome", "not_an_image", [card.id for card in cards if card.outcome == "not_an_image"]),
        ("low", "0.75", [card.id for card in cards if card.score is not None and card.score >= 0.75]),
        ("high", "0.75", [card.id for card in cards if card.score is not None and card.score <= 0.75]),
        ("key", "S.TAR", [card.id for card in cards if card.uri.endswith("s.tar")]),
    ):
        browser.look("document.querySelector('.filters').reset()")
        set_field(browser, name, value)
        assert 0 < len(expected) < len(cards), name
        assert sorted(map(int, browser.look(f"{SHOWN}.map(each => each.dataset.id)"))) == sorted(expected), name
        assert browser.look("document.querySelector('.filters output').textContent").startswith(f"{len(expected)} of")
    set_field(browser, "key", "no such thing")
    assert browser.look("!document.querySelector('.nothing-left').hidden")


def test_cards_are_sorted(browser: Browser, path: Path, hostile: Sample) -> None:
    browser.show(path)
    scores = [card.score for card in hostile.report.cards]
    known = [score for score in scores if score is not None]
    n_unknown = len(scores) - len(known)
    for sort, is_reversed in (("score", True), ("-score", False)):
        set_field(browser, "sort", sort)
        found = browser.look(f"{SHOWN}.map(each => each.dataset.score)")
        assert [float(each) for each in found[: len(known)]] == pytest.approx(sorted(known, reverse=is_reversed))
        assert found[len(known) :] == [""] * n_unknown
    set_field(browser, "sort", "outcome")
    found = browser.look(f"{SHOWN}.map(each => each.dataset.outcome)")
    assert found == sorted(found)


def test_what_is_chosen_is_in_the_address_and_comes_back(browser: Browser, path: Path) -> None:
    browser.show(path)
    set_field(browser, "label", LABELS[1])
    fragment = browser.look("location.hash")
    before = browser.look(f"{SHOWN}.map(each => each.dataset.id)")
    browser.show(path, fragment)
    assert browser.look(f"{SHOWN}.map(each => each.dataset.id)") == before
    assert browser.look("document.querySelector('[name=label]').value") == LABELS[1]


def test_a_cell_of_the_matrix_leads_to_its_mistakes(browser: Browser, path: Path) -> None:
    browser.show(path)
    assert browser.look("document.querySelectorAll('.matrix a').length") >= 1
    browser.look("document.querySelector('.matrix a').click()")
    assert browser.look(f"{SHOWN}.length") >= 1
    assert browser.look(f"{SHOWN}.every(each => each.dataset.kinds.includes('mistake'))")


def test_the_closer_look_works_by_keyboard(browser: Browser, path: Path) -> None:
    browser.show(path)
    browser.look("document.querySelector('.open').focus()")
    browser.press("Enter", "\r")
    assert browser.look("document.getElementById('closer').open")
    first = browser.look("document.getElementById('closer-name').textContent")
    assert browser.look("document.querySelector('#closer img').src").startswith("data:image/jpeg")
    browser.press("ArrowRight")
    assert browser.look("document.getElementById('closer-name').textContent") != first
    browser.press("ArrowLeft")
    assert browser.look("document.getElementById('closer-name').textContent") == first
    browser.press("Escape")
    assert not browser.look("document.getElementById('closer').open")
    assert browser.look("document.activeElement.className") == "open"


def test_tables_sort_and_histograms_are_those_of_one_label(browser: Browser, path: Path, hostile: Sample) -> None:
    browser.show(path)
    counts = "[...document.querySelectorAll('#label-table tbody tr')].map(row => Number(row.cells[1].dataset.value))"
    browser.look("document.querySelectorAll('#label-table th button')[1].click()")
    assert browser.look(counts) == sorted(browser.look(counts), reverse=True)
    browser.look("document.querySelectorAll('#label-table th button')[1].click()")
    assert browser.look(counts) == sorted(browser.look(counts))
    assert browser.look("document.querySelectorAll('#label-table th')[1].ariaSort") == "ascending"
    bins = (
        "[...document.querySelectorAll('#scores [data-spread=score] tbody td.n')].map(cell => Number(cell.textContent))"
    )
    survey = hostile.report.survey
    assert browser.look(bins) == survey.scores.total_M.tolist()
    browser.look(
        """(() => { const chosen = document.getElementById('spread-label'); chosen.value = '1';
                    chosen.dispatchEvent(new Event('input')); })()"""
    )
    assert browser.look(bins) == survey.scores.n_CM[1].tolist()


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_it_fits_the_window(browser: Browser, path: Path, width: int, dark: bool) -> None:
    browser.show(path, width=width, height=800, dark=dark)
    assert browser.look("document.documentElement.scrollWidth") <= width
    background = browser.look("getComputedStyle(document.body).backgroundColor")
    level = [int(each) for each in background[4:-1].split(",")]
    assert (max(level) < 60) is dark
