"""The page in a real browser, with the network off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from harness.publish.curve import label_efficiency
from harness.publish.page import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]

EVIL = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


def board() -> pl.DataFrame:
    """Three arms at four budgets, as `leaderboard` returns them; the second arm is called something hostile."""
    rows = []
    for size in (1, 2, 4, 16):
        for place, (arm, score) in enumerate((("mt_clar", 0.5), (EVIL, 0.4), ("last_label", 0.3)), start=1):
            control = arm == "last_label"
            rows.append(
                {
                    "rank": place,
                    "tie": None if place == 1 else place == 2,
                    "arm": arm,
                    "support.size": str(size),
                    "support.selection": "uniform",
                }
                | {"baseline": arm, "baseline_version": 1, "control": control, "selection": "last", "score": score + size / 100}
                | {
                    "lo": score + size / 100 - 0.05,
                    "hi": score + size / 100 + 0.05,
                    "pooled": score,
                    "se_fold": 0.01 * place,
                    "se_seed": None,
                }
                | {"n_records": 4, "n_fold": 2, "n_subjects": 18, "n_clips": 36, "labels_per_clip": float(size), "labelled": size / 50}
                | {"best_control": None if control else "last_label", "gain": None if control else 0.1 * (3 - place)}
                | {"gain_lo": None if control else -0.02, "gain_hi": None if control else 0.3}
                | {"gain_p": None if control else 0.0005 if place == 1 else 0.04, "note": ""}
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def written() -> str:
    table = board()
    curve = label_efficiency(table, title="Labels & <scores>", score="CCC")["svg"]
    areas = pl.DataFrame({"arm": ["mt_clar", EVIL], "support.selection": ["uniform"] * 2, "area": [0.51, 0.42], "meets": [0.04, None]})
    return page(
        table,
        title="How many labels? <script>document.title='taken'</script>",
        question="Which method needs fewest?",
        primary="ccc",
        command="harness sweep support_size scale=demo && echo '</code><script>document.title=\"taken\"</script>'",
        synthetic=True,
        figures={"Score over labelled frames": curve, f"Again {EVIL}": curve},
        tables={"label efficiency": areas},
        notes=["Protocol no_support_scored.", EVIL],
        provenance={"commit": "0" * 40, EVIL: EVIL, "fingerprint": "f" * 300},
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(written(), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desk", "phone"])
def opened(browser, address, request) -> Iterator[object]:  # type: ignore[no-untyped-def]
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    tab = context.new_page()
    tab.asked, tab.said = [], []
    tab.on("request", lambda asked: tab.asked.append(asked.url))
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.goto(address)
    yield tab
    context.close()


def column(tab, name: str) -> list[str]:  # type: ignore[no-untyped-def]
    script = """name => { const table = document.querySelector("table");
        const place = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim() === name);
        return [...table.tBodies[0].rows].map(row => row.cells[place].textContent); }"""
    return list(tab.evaluate(script, name))


def test_a_script_in_a_name_is_text(opened, address) -> None:  # type: ignore[no-untyped-def]
    opened.wait_for_timeout(100)
    assert opened.title() == "How many labels? <script>document.title='taken'</script>"
    assert EVIL in column(opened, "method")
    assert opened.locator("main img, main script").count() == 0
    assert opened.asked == [address]  # nothing else was even asked for
    assert opened.said == []


def test_headings_sort_numbers_as_numbers_and_say_so(opened) -> None:  # type: ignore[no-untyped-def]
    heading = opened.get_by_role("columnheader", name="size").first
    heading.get_by_role("button").click()
    assert [int(size) for size in column(opened, "size")] == sorted([1, 2, 4, 16] * 3, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").press("Enter")  # the keyboard does the same
    assert [int(size) for size in column(opened, "size")] == sorted([1, 2, 4, 16] * 3)
    assert heading.get_attribute("aria-sort") == "ascending"
    opened.get_by_role("columnheader", name="score").first.get_by_role("button").click()
    scores = [float(cell.split()[0]) for cell in column(opened, "score")]
    assert scores == sorted(scores, reverse=True)
    assert heading.get_attribute("aria-sort") is None


def test_empty_cells_stay_last_either_way(opened) -> None:  # type: ignore[no-untyped-def]
    button = opened.get_by_role("columnheader", name="p", exact=True).first.get_by_role("button")
    for expected in (["0.040"] * 4 + ["<0.001"] * 4, ["<0.001"] * 4 + ["0.040"] * 4):
        button.click()
        assert column(opened, "p") == [*expected, *[""] * 4]


def test_the_page_is_never_wider_than_the_screen_and_its_figure_is_seen(opened) -> None:  # type: ignore[no-untyped-def]
    wide, screen = opened.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen
    assert opened.locator("figure svg").count() == 2
    assert opened.locator("h2", has_text="Again").text_content() == f"Again {EVIL}"
    for figure in opened.locator("figure svg").all():
        assert figure.bounding_box()["height"] > 150
    assert opened.get_by_text("Synthetic data").is_visible()
    opened.locator("summary").click()
    wide, screen = opened.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen


def test_it_can_be_read_in_light_and_dark(opened) -> None:  # type: ignore[no-untyped-def]
    script = """() => {
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = rgb => {
            const [r, g, b] = rgb.match(/\\d+/g).map(v => linear(v / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const under = element => { const ground = getComputedStyle(element).backgroundColor;
            return ground === "rgba(0, 0, 0, 0)" && element.parentElement ? under(element.parentElement) : ground; };
        return ["h1", ".question", ".banner", "td", "tr.control td", ".legend li", "pre"].map(name => {
            const element = document.querySelector(name), a = light(getComputedStyle(element).color), b = light(under(element));
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
    }"""
    assert min(opened.evaluate(script)) >= 4.5  # WCAG 2 AA


def test_the_same_board_gives_the_same_bytes() -> None:
    assert written() == written()
