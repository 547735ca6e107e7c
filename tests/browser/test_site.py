"""The site in a real browser, from disk, with the network off: sort, filter, hide, keyboard, phone, dark, print, and without a script."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.publish import folder, inventory, site
from tests.stores import EVIL, full

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out")
    full(output)
    folder.replace(output / "site", site.pages(inventory.read(output), output))
    return output / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


def opened(browser: Any, address: Path, *, width: int = 1280, **options: Any) -> Any:
    """A tab that remembers what it asked for and what it said."""
    context = browser.new_context(viewport={"width": width, "height": 844}, offline=True, **options)
    tab = context.new_page()
    tab.asked, tab.said = [], []
    tab.on("request", lambda asked: tab.asked.append(asked.url))
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.goto(address.as_uri())
    return tab


def table(root: Path) -> Path:
    """The page of the table that has everything."""
    (found,) = [path for path in (root / "tasks").iterdir() if "cheat</a>" in path.read_text()]
    return found


def row(root: Path) -> Path:
    """The page of a row that was trained."""
    return next(path for path in sorted((root / "rows").iterdir()) if "Learning curves" in path.read_text())


@pytest.fixture
def tab(browser: Any, root: Path) -> Iterator[Any]:
    made = opened(browser, table(root))
    yield made
    made.context.close()


def column(tab: Any, name: str) -> list[str]:
    """Cells of the rows that are seen."""
    script = """name => { const table = document.querySelector(".board table");
        const place = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim() === name);
        return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[place].textContent); }"""
    return list(tab.evaluate(script, name))


def test_every_kind_of_page_opens_from_disk_and_asks_for_nothing_else(browser: Any, root: Path) -> None:
    pages = [root / "index.html", table(root), row(root), next(root.glob("sweeps/*/index.html"))]
    pages += [path for path in (root / "rows").iterdir() if "taken" in path.read_text()][:1]
    for width, scheme in ((1280, "light"), (375, "dark")):
        for page in pages:
            tab = opened(browser, page, width=width, color_scheme=scheme)
            tab.wait_for_timeout(60)
            wide, screen = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= screen, page
            assert tab.title() != "taken"
            assert tab.asked == [page.as_uri()]
            assert tab.said == []
            tab.context.close()


def test_one_goes_from_the_index_to_a_row_and_back_by_the_keyboard(browser: Any, root: Path) -> None:
    tab = opened(browser, root / "index.html")
    tab.get_by_role("link", name="toy v1").first.press("Enter")
    tab.wait_for_selector(".board")
    tab.locator(".board tbody a").first.press("Enter")
    tab.wait_for_selector("text=By fold and seed")
    tab.get_by_role("link", name="All leaderboards").press("Enter")
    tab.wait_for_selector("h1:has-text('Leaderboards')")
    assert tab.said == []
    tab.context.close()


def test_the_table_sorts_by_score_with_the_picture_in_its_cell(tab: Any) -> None:
    heading = tab.locator(".board").get_by_role("columnheader", name="score")
    heading.get_by_role("button").press("Enter")
    scores = [float(cell.split()[0]) for cell in column(tab, "score")]
    assert scores == sorted(scores, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    assert tab.locator(".board td svg.bar circle").count() == len(scores)


def test_rows_are_found_by_text_and_by_group(tab: Any) -> None:
    everything = column(tab, "method")
    assert EVIL in everything
    search = tab.get_by_label("Find")
    search.fill("CHEAT oracle")
    assert set(column(tab, "method")) == {"cheat"}
    assert tab.locator("output").text_content() == f"{len(column(tab, 'method'))} of {len(everything)} rows"
    search.fill("16")
    assert set(column(tab, "size")) == {"16"}  # and not where 16 is a part of 0.160
    search.fill("")
    for group, arm in (("controls", "mean"), ("submitted", "sent"), ("stale", "old"), ("partial", "half"), ("oracle", "cheat")):
        box = tab.get_by_label(group, exact=True)
        box.press("Space")
        assert arm not in column(tab, "method")
        box.press("Space")
    assert column(tab, "method") == everything


def test_columns_hide_and_come_back(tab: Any) -> None:
    tab.locator(".columns summary").press("Enter")
    heading = tab.locator(".board").get_by_role("columnheader", name="gain")
    tab.locator(".columns").get_by_label("gain").press("Space")
    assert heading.count() == 0
    tab.locator(".columns").get_by_label("gain").press("Space")
    assert heading.count() == 1


def test_points_say_what_they_are_to_the_mouse_and_to_the_keyboard(tab: Any) -> None:
    points = tab.locator("figure .point")
    assert points.count() > 10
    points.first.focus()
    tip = tab.locator(".tip")
    assert tip.is_visible()
    assert "labels a clip" in tip.text_content()
    tab.keyboard.press("Escape")
    assert not tip.is_visible()
    cost = tab.locator("figure").nth(1).locator(".point").first
    cost.hover()
    assert "seconds" in tip.text_content()
    assert tab.locator("figure").nth(1).locator("path[style*='stroke-dasharray']").count() >= 1  # the best control, drawn through


def test_without_a_script_everything_is_there_but_the_tools(browser: Any, root: Path) -> None:
    tab = opened(browser, table(root), java_script_enabled=False)
    assert not tab.locator(".tools").is_visible()
    assert tab.locator(".board tbody tr").first.is_visible()
    assert tab.locator("figure .point title").count() > 10
    tab.context.close()


def test_on_paper_there_are_no_tools_and_nothing_is_cut_off(tab: Any) -> None:
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 1000, "height": 700})  # less than A4 or Letter, lying
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1000
    assert not tab.locator(".tools").is_visible()
    assert not tab.locator("nav").is_visible()
    assert tab.evaluate("getComputedStyle(document.querySelector('.wide')).overflowX") == "visible"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, root: Path, scheme: str) -> None:
    script = """() => {
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(v => linear(v / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const under = element => { const ground = getComputedStyle(element).backgroundColor;
            return ground === "rgba(0, 0, 0, 0)" && element.parentElement ? under(element.parentElement) : ground; };
        const names = ["h1", ".question", ".banner", "tr.control td", "tr.control a", ".legend li", ".badge", ".badge.stale", "nav a"];
        return names.map(name => {
            const element = document.querySelector(name), a = light(getComputedStyle(element).color), b = light(under(element));
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
    }"""
    tab = opened(browser, table(root), color_scheme=scheme)
    assert min(tab.evaluate(script)) >= 4.5  # WCAG 2 AA
    ink = tab.evaluate("getComputedStyle(document.querySelector('figure svg g[style*=\"fill: var(--ink)\"]')).fill")
    assert ink == ("rgb(27, 31, 36)" if scheme == "light" else "rgb(230, 237, 243)")
    tab.context.close()
