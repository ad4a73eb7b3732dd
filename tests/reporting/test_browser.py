"""The page in a real browser: it works, alone, at any width, and with a screen reader."""

from __future__ import annotations

import itertools
import re

import browser as driver
import pytest
from browser import opened, walk
from made import HOSTILE, row, table

import clipeval

SECTIONS = ("leaderboard", "heatmap", "scaling", "compare", "examples", "probe", "learning", "missing")


@pytest.fixture(scope="module")
def chromium():
    try:
        with driver.chromium() as browser:
            yield browser
    except RuntimeError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="module")
def page(chromium, run):
    """The page of the real run, shared by tests that leave it as they found it."""
    with opened(chromium, run.page) as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_reads_well_at_any_width(chromium, run, width, scheme):
    with opened(chromium, run.page, width, scheme) as page:
        walk(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width, "no horizontal scrolling"
        for section in SECTIONS:
            assert page.locator(f"#{section} > h2").is_visible()
        for plot in page.locator(".panel:not([hidden]) .plot").all():
            box = plot.locator("svg.main-svg").first.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        small = page.evaluate(_SMALL_TEXT)
        assert small == [], "text is at least 10 pixels high"
        faint = {pair: ratio for pair, ratio in page.evaluate(_CONTRASTS).items() if ratio < 4.5}
        assert faint == {}, "WCAG 2.2, 1.4.3"


_SMALL_TEXT = """() => [...document.querySelectorAll('main *')]
    .filter(e => e.offsetParent && !e.children.length && e.textContent.trim() && !e.closest('svg'))
    .filter(e => parseFloat(getComputedStyle(e).fontSize) < 10).map(e => e.outerHTML)"""
_CONTRASTS = """() => {
    const style = getComputedStyle(document.documentElement);
    const light = name => {
        const [r, g, b] = style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map(h => parseInt(h, 16) / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const pairs = [['--ink', '--paper'], ['--soft', '--paper'], ['--soft', '--wash'], ['--accent', '--paper'],
        ['--ink', '--high'], ['--ink', '--low'], ['--bad', '--paper'], ['--good', '--paper']];
    return Object.fromEntries(pairs.map(([a, b]) => {
        const [x, y] = [light(a), light(b)].sort((m, n) => n - m);
        return [a + b, (x + 0.05) / (y + 0.05)];
    }));
}"""


def first_column(page, board, column):
    return page.locator(f"#{board} tbody tr:visible > :nth-child({column})").all_inner_texts()


def test_sorting_by_mouse_and_keyboard(page):
    board = page.locator('[data-group="boards"] > .panel:visible').get_attribute("id")
    head = page.locator(f"#{board} thead th").filter(has_text="Model")
    head.get_by_role("button").click()
    names = first_column(page, board, 2)
    assert head.get_attribute("aria-sort") == "ascending"
    assert len(names) > 1
    assert names == sorted(names)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert first_column(page, board, 2) == names[::-1]
    metric = page.locator(f"#{board} thead th").nth(2)
    metric.get_by_role("button").focus()
    page.keyboard.press("Space")
    values = [float(text.split()[0]) for text in first_column(page, board, 3)]
    assert values == sorted(values, reverse=True)
    assert page.locator(f"#{board} th[aria-sort]").count() == 1
    page.locator(f"#{board} thead th").first.get_by_role("button").click()
    assert first_column(page, board, 1)[0] == "1"


def test_missing_values_sort_last(chromium, tmp_path):
    rows = [row("a", value=0.3), row("b", value=float("nan"), status="failed", error="x"), row("c", value=0.1)]
    file = clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    with opened(chromium, file) as page:
        head = page.locator("#board-0 thead th").nth(2).get_by_role("button")
        head.click()
        assert first_column(page, "board-0", 2) == ["a", "c", "b"]
        head.click()
        assert first_column(page, "board-0", 2) == ["c", "a", "b"]


def test_filters(page):
    model, source = page.get_by_label("Model", exact=True), page.get_by_label("Source")
    lines = page.locator('[data-group="boards"] > .panel:visible tbody tr:visible')
    heat = page.locator("#heatmap .panel:visible tbody tr:visible")
    assert (lines.count(), heat.count()) == (2, 2)
    model.fill("RUN/B")
    assert (lines.count(), heat.count()) == (1, 1)
    assert page.locator("#filter-count").inner_text() == "1 of 2 lines"
    source.select_option("toy-a")
    assert lines.count() == 0
    model.fill("")
    assert lines.locator("th").all_inner_texts()[0].endswith("run/a/checkpoints/001000.pt")
    source.select_option("")
    page.get_by_label("Architecture").select_option("tiny")
    assert lines.count() == 2
    page.get_by_label("Architecture").select_option("")


def test_boards_switch(page, run):
    menu = page.locator("select[data-switch=boards]")
    before = menu.input_value()
    menu.select_option("pairs")
    visible = page.locator('[data-group="boards"] > .panel:visible')
    assert visible.count() == 1
    assert visible.locator("caption").inner_text().startswith("pairs")
    frame = clipeval.read_results(run.results)
    wanted = frame[(frame.metric == "image_retrieval_recall@5") & frame.model.str.contains("001000")].value.max()
    assert visible.locator("tbody td").nth(1).locator("button").inner_text() == f"{100 * wanted:.1f}"
    menu.select_option(before)


def test_a_number_leads_to_its_row(page, run):
    frame = clipeval.read_results(run.results)
    button = page.locator('[data-group="boards"] > .panel:visible tbody button.v').first
    number = int(button.get_attribute("data-row"))
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Where this number comes from")
    assert dialog.is_visible()
    shown = {line.locator("th").inner_text(): line.locator("td").inner_text() for line in dialog.locator("tr").all()}
    for name in ("checkpoint_sha256", "dataset_fingerprint", "precision", "clipeval_version", "packages"):
        assert shown[name] == frame.loc[number, name]
    assert float(shown["value"]) == frame.loc[number, "value"]
    assert shown["command"].startswith("clipeval run -m ")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.dataset.row") == str(number)


def test_plots_answer_to_hover_and_click(page, run):
    page.locator("#scaling").scroll_into_view_if_needed()
    plot = page.locator("#scaling .panel:visible .plot")
    point = plot.locator(".scatterlayer .point").first
    point.wait_for()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    label = plot.locator(".hoverlayer .hovertext")
    label.wait_for()
    assert re.search(r"run/[ab]/checkpoints/001000\.pt", label.text_content())
    page.mouse.down()
    page.mouse.up()
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")


def test_comparison_of_two_checkpoints(page, run):
    page.locator("#compare").scroll_into_view_if_needed()
    lines = page.locator("#compare-table tbody tr")
    lines.first.wait_for()
    frame = clipeval.read_results(run.results)
    names = page.locator("#first option").all_inner_texts()

    def line():
        cells = lines.filter(has_text="colours · zero-shot classification").locator("td").all_inner_texts()
        return [cell.replace("−", "-") for cell in cells]

    values = [
        frame[(frame.model == name) & (frame.task == "zeroshot_classification") & (frame.metric == "acc1")].value.iloc[
            0
        ]
        for name in names
    ]
    first = line()
    assert first[1:3] == [f"{100 * value:.1f}" for value in values]
    assert float(first[3]) == pytest.approx(100 * (values[0] - values[1]), abs=0.051)
    page.locator("#first").select_option("1")
    assert "two different" in page.locator("#compare-note").inner_text()
    page.locator("#second").select_option("0")
    turned = line()
    assert turned[1:3] == first[1:3][::-1]
    assert float(turned[3]) == -float(first[3])
    assert turned[7:9] == first[7:9][::-1]


def test_retrieval_examples_are_pictures(page):
    gallery = page.locator("#examples .panel:visible")
    gallery.scroll_into_view_if_needed()
    assert gallery.locator("ul.queries > li").count() == 8
    assert gallery.locator("ol img").count() == 40
    is_whole = "i => i.complete && i.naturalWidth === 41 && i.naturalHeight === 37"
    shown = f"g => [...g.querySelectorAll('img')].every({is_whole})"
    page.wait_for_function(shown, arg=gallery.element_handle())  # pictures are loaded when they come into view
    assert gallery.locator("ul.queries p").first.inner_text() == "“a red square, view 0 of item 0”"


def test_screen_reader_landmarks(page):
    snapshot = page.locator("body").aria_snapshot()
    for landmark in ("- banner:", '- navigation "Sections":', "- main:", "- contentinfo:"):
        assert landmark in snapshot
    for section in ("Leaderboard", "Heat map", "Scaling", "Compare two checkpoints", "Linear probe", "Missing"):
        assert f'- region "{section}":' in snapshot
    levels = [int(level) for level in re.findall(r"heading .*\[level=(\d)\]", snapshot)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, select, input, a')]
        .filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)""")
    assert [tag for tag in nameless if "modebar" not in tag] == []


def test_hostile_names_do_nothing(chromium, tmp_path):
    rows = [
        row(f"{i} {HOSTILE}", f"{HOSTILE} {d}", value=0.2 + i / 10, source=HOSTILE, source_family=HOSTILE, arch=HOSTILE,
            gmacs_total=10.0**i, task=task, shots=shots)
        for i in range(5) for d in range(2) for task, shots in (("zeroshot_classification", None), ("linear_probe", 1))
    ]  # fmt: skip
    rows.append(row(HOSTILE, "digits", value=float("nan"), status="failed", error=HOSTILE))
    file = clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    with opened(chromium, file) as page:
        walk(page)
        page.locator("button.v").first.click()
        assert HOSTILE in page.locator("dialog tbody").inner_text()
        page.keyboard.press("Escape")
        plot = page.locator("#scaling .panel:visible .plot")
        plot.scroll_into_view_if_needed()
        box = plot.locator(".scatterlayer .point").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
        plot.locator(".hoverlayer .hovertext").wait_for()
        assert "<script>hacked=1</script>" in plot.locator(".hoverlayer").text_content()
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.locator("img").count() == 0


def test_the_policy_blocks_other_scripts(chromium, run):
    page = chromium.new_page()
    page.goto(run.page.resolve().as_uri())
    blocked = page.evaluate(
        """() => new Promise(done => {
            document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
            const script = document.createElement('script');
            script.textContent = 'hacked = 1';
            document.body.append(script);
        })"""
    )
    assert blocked.startswith("script-src")
    assert page.evaluate("typeof hacked") == "undefined"
    page.close()


def test_prints(chromium, run):
    with opened(chromium, run.page, scheme="dark") as page:
        walk(page)
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert (
            page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()") == "#ffffff"
        )
        page.wait_for_function("document.querySelector('#scaling .plot .xtick text').style.fill === 'rgb(22, 25, 31)'")
