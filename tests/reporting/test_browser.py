"""The page in a real browser: it works, alone, at any width, and with a screen reader."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re

import browser as driver
import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import opened, walk
from made import HOSTILE, row, table

import clipeval

SECTIONS = (
    "findings",
    "overview",
    "leaderboard",
    "heatmap",
    "scaling",
    "compare",
    "examples",
    "probe",
    "learning",
    "missing",
)


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
    assert lines.locator("th").first.get_attribute("title").endswith("run/a/checkpoints/001000.pt")
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
    dialog.locator("summary").click()
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
    assert re.search(
        r"[ab]/checkpoints/001000\.pttoy-[ab], tiny, 1k samples seen.* %( \(.*\))?, n = \d+.*GMACs",
        label.text_content(),
    )
    page.mouse.down()
    page.mouse.up()
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")


def test_comparison_of_two_checkpoints(page, run):
    page.locator("#compare").scroll_into_view_if_needed()
    lines = page.locator("#compare-table tbody tr")
    lines.first.wait_for()
    frame = clipeval.read_results(run.results)
    names = [option.get_attribute("title") for option in page.locator("#first option").all()]

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
    assert gallery.locator("ul.queries > li:visible").count() == 8 + 4
    assert gallery.locator("ol img:visible").count() == 40
    is_whole = "i => i.complete && i.naturalWidth === 41 && i.naturalHeight === 37"
    shown = f"g => [...g.querySelectorAll('img')].every({is_whole})"
    page.wait_for_function(shown, arg=gallery.element_handle())  # pictures are loaded when they come into view
    assert gallery.locator("ul.queries p").first.inner_text() == "“a red square, view 0 of item 0”"


def test_examples_of_two_checkpoints_and_only_misses(chromium, run):
    with opened(chromium, run.page) as page:
        panel = page.locator("#examples .panel:visible")
        lines = panel.locator("li[data-query]")
        assert lines.locator(".captions").first.locator("li").count() == 5
        page.get_by_label("Only misses").check()
        shown = [line for line in lines.all() if line.is_visible()]
        assert len(shown) > 4
        assert not [line for line in shown if line.locator(".hit, .right").count()]
        page.get_by_label("Only misses").uncheck()
        menu = panel.get_by_label("Beside it")
        menu.select_option(index=1)
        other = page.locator("#" + menu.input_value())
        for line in lines.all()[:3]:
            query = line.get_attribute("data-query")
            twin = other.locator(f'li[data-query="{query}"] ol img').evaluate_all("all => all.map(i => i.alt)")
            assert line.locator("ol.other img").evaluate_all("all => all.map(i => i.alt)") == twin
        picture = panel.locator(".thumb button:visible").first
        picture.press("Enter")
        assert page.get_by_role("dialog", name="Picture").locator("img").evaluate("i => i.clientWidth") == 480
        page.keyboard.press("Escape")


def test_screen_reader_landmarks(page):
    snapshot = page.locator("body").aria_snapshot()
    for landmark in ("- banner:", '- navigation "Sections":', "- main:", "- contentinfo:"):
        assert landmark in snapshot
    for section in (
        "Overview",
        "Leaderboards",
        "Heat map",
        "Scaling",
        "Compare two checkpoints",
        "Linear probe",
        "Missing",
    ):
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
        assert HOSTILE in page.locator("#origin tbody").text_content()
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


def test_every_board_draws_the_tables_numbers(page, run):
    frame = clipeval.read_results(run.results)
    menu = page.locator("select[data-switch=boards]")
    before = menu.input_value()
    for option in menu.locator("option").all():
        menu.select_option(option.get_attribute("value"))
        for cell in page.locator('[data-group="boards"] > .panel:visible td:has(button)').all():
            expected = frame.loc[int(cell.locator("button").get_attribute("data-row"))]
            assert cell.locator("button").inner_text() == f"{100 * expected.value:.1f}"
            assert cell.locator("small").inner_text() == f"{100 * expected.ci_low:.1f}–{100 * expected.ci_high:.1f}"
    menu.select_option(before)


def test_halves_are_rounded_as_in_the_markdown_table(chromium, tmp_path):
    """Halves that are exact in binary: 6.25 % is 6.2, 68.75 % is 68.8, in the page and in report.md."""
    values = {"a": 0.6875, "b": 0.0625, "c": 0.03125, "d": 0.12345}
    file = clipeval.report(table([row(m, value=v) for m, v in values.items()], tmp_path / "results"), tmp_path / "page")
    with opened(chromium, file) as page:
        assert page.locator("#board-0 td button").all_inner_texts() == [
            f"{100 * v:.1f}" for v in sorted(values.values(), reverse=True)
        ]


def open_clip_like(tmp_path):
    """Checkpoints of open_clip with two sources on two data sets."""
    rows = [
        row(f"{arch},{tag}", dataset, arch=arch, source=source, value=0.3 + 0.1 * i + 0.01 * j, ci_low=0.2, ci_high=0.9)
        for i, arch in enumerate(("ViT-B-32", "ViT-B-16", "ViT-L-14"))
        for j, (tag, source) in enumerate((("laion2b_e16", "LAION-2B"), ("openai", "CLIP-WIT")))
        for dataset in ("cars", "mnist")
    ]
    return clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")


def test_words_are_found_in_any_order_and_marked(chromium, tmp_path):
    with opened(chromium, open_clip_like(tmp_path)) as page:
        lines = page.locator("#board-0 tbody th")
        assert lines.count() == 6
        page.get_by_label("Model", exact=True).fill("LAION b-32")
        assert lines.all_inner_texts() == ["ViT-B-32 · LAION-2B · 1k"]
        assert page.locator("#board-0 tbody mark").all_inner_texts() == ["B-32", "LAION", "LAION"], "in the source too"
        page.get_by_label("Model", exact=True).fill("e16")
        assert lines.count() == 3, "the spec is searched too"
        page.get_by_label("Model", exact=True).fill("no such")
        assert lines.count() == 0


def test_an_address_shows_the_same_again(chromium, run):
    with opened(chromium, run.page) as page:
        page.get_by_label("Model", exact=True).fill("b/check 1000")
        page.locator("select[data-switch=boards]").select_option("pairs")
        page.locator("#scaling select").select_option(index=3)
        page.locator("#compare").scroll_into_view_if_needed()
        page.locator("#first").select_option("1")
        page.locator("#second").select_option("0")
        address = page.url
        plot = page.locator("#scaling .panel:visible").get_attribute("id")
        difference = page.locator("#compare-table tbody tr").first.inner_text()
    with opened(chromium, run.page) as page:
        page.goto(address)
        assert page.locator("[data-group=boards] .panel:visible tbody tr").count() == 1
        assert page.locator('[data-group="boards"] > .panel:visible caption').inner_text().startswith("pairs")
        assert page.locator("#scaling .panel:visible").get_attribute("id") == plot
        assert page.locator("#compare-table tbody tr").first.inner_text() == difference
        page.wait_for_function("document.querySelector('#compare').getBoundingClientRect().top < 200")
        page.get_by_role("navigation").get_by_role("link", name="Heat map").click()
        assert page.url.split("?")[1] == address.split("?")[1], "a link within the page keeps what is chosen"


def test_columns_are_chosen_and_tables_copied(chromium, tmp_path):
    file = open_clip_like(tmp_path)
    with opened(chromium, file) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        overview = page.locator("#overview")
        heads = overview.locator("thead th")
        assert "Source" in heads.all_inner_texts()[-2]
        overview.get_by_text("Columns").click()
        overview.get_by_role("button", name="Source", pressed=True).click()
        assert not [text for text in heads.all_inner_texts() if "Source" in text]
        overview.get_by_role("button", name="Copy CSV").click()
        copied = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
        assert [line["Checkpoint"] for line in copied][:2] == ["ViT-L-14,openai", "ViT-L-14,laion2b_e16"]
        assert float(copied[0]["cars Top-1"]) == 0.3 + 0.1 * 2 + 0.01
        assert float(copied[0]["cars Top-1 high"]) == 0.9
        overview.get_by_role("button", name="Copy Markdown").click()
        text = page.evaluate("navigator.clipboard.readText()")
        assert "51.0 (20.0–90.0)" in text.splitlines()[2]
        assert len({line.count(" | ") for line in text.splitlines()}) == 1


def test_a_table_is_one_tab_stop_and_arrows_move_in_it(page):
    assert page.locator("#overview table [tabindex='0']").count() == 1
    page.locator("#overview thead button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    number = page.evaluate("document.activeElement.closest('td') && document.activeElement.textContent")
    assert re.fullmatch(r"\d+\.\d", number)
    assert page.locator("#overview table [tabindex='0']").count() == 1
    page.evaluate("document.activeElement.blur()")


def test_samples_that_flipped_are_those_of_the_outcomes(page, run):
    page.locator("#compare").scroll_into_view_if_needed()
    page.locator("#flips").wait_for()
    a, b = (page.locator(f"#{side}").input_value() for side in ("first", "second"))
    specs = [option.get_attribute("title") for option in page.locator("#first option").all()]
    part = page.locator("#flips details").filter(has_text="colours · zero-shot classification")
    if not part.evaluate("part => part.open"):
        part.locator("summary").click()
    heads = part.locator("p").all_inner_texts()
    right = [outcomes(run.results, specs[int(side)]) for side in (a, b)]
    for place, (one, other) in enumerate((right, right[::-1])):
        ids = {id for id, correct in one.items() if correct and not other[id]}
        shown = [item.get_attribute("title") for item in part.locator("ul").nth(place).locator("li").all()]
        assert set(shown) <= ids
        assert len(shown) == min(6, len(ids))
        assert f"{len(ids)} sample" in heads[place]


def outcomes(results, model):
    """Whether each sample of the folder of colours is right, read from the ledger's own files."""
    wanted = {(model, "colours", "zeroshot_classification")}
    for line in (results / "ledger.jsonl").read_text().splitlines():
        record = json.loads(line)
        rows = record.get("rows", [])
        if {(r["model"], r["dataset"], r["task"]) for r in rows} == wanted:
            frame = pd.read_parquet(results / "samples" / f"{record['cell']}.parquet")
            return dict(zip(frame["id"].astype(str), frame["correct"].astype(bool), strict=True))
    raise AssertionError(f"no cell of {wanted}")


def test_a_training_loss_is_smoothed(page):
    """By hand, losses 3.5 and 2.5 at weight 0.5: (0.25 * 3.5 + 0.5 * 2.5) / 0.75."""
    menu = page.locator("select[data-switch=learning]")
    before = menu.input_value()
    menu.select_option("Training loss")
    plot = page.locator("#learning .panel:visible .plot")
    page.locator("input[data-smooth]:visible").fill("0.5")
    plot.locator(".scatterlayer").wait_for()
    assert plot.evaluate("plot => plot.data[0].y") == pytest.approx([3.5, 17 / 6])
    page.locator("input[data-smooth]:visible").fill("0")
    assert plot.evaluate("plot => plot.data[0].y") == [3.5, 2.5]
    menu.select_option(before)


def test_an_automatic_audit_of_accessibility_finds_nothing(chromium, run):
    for width, scheme in ((1400, "light"), (400, "dark")):
        with opened(chromium, run.page, width, scheme) as page:
            walk(page)
            found = Axe().run(page).response["violations"]
            assert [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found] == []


def test_prints_whole_without_scrolling(chromium, run, tmp_path):
    """Every plot and table of the paper is drawn although none was on the screen; nothing is cut at the right."""
    with opened(chromium, run.page, width=1000) as page:
        page.evaluate(_ON_PAPER)
        page.emulate_media(media="print")
        page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
        plots = page.evaluate("printed")
        assert plots["drawn"] == plots["visible"] > 2
        assert plots["widest"] <= 273 / 25.4 * 96, "A4 across, less its margins"
        assert plots["tables"] == [True] * len(plots["tables"])
    with opened(chromium, run.page, width=1032) as page:
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("document.documentElement.scrollWidth") == 1032, "no table is wider than the paper"


def test_a_legend_stays_above_its_plot_in_a_window_of_another_width(chromium, tmp_path):
    rows = [
        row(f"{s}{i}", value=1 - 0.9 * 10 ** (-0.1 * i), gmacs_total=10.0**i, source=f"a source {s}", source_family=s)
        for s in "abc" for i in range(2, 8)
    ]  # fmt: skip
    file = clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    above = """() => { const plot = document.querySelector('#findings .plot');
        const legend = plot.querySelector('.legend').getBoundingClientRect();
        return legend.bottom - plot.getBoundingClientRect().top - plot._fullLayout._size.t; }"""
    with opened(chromium, file, 1032) as page:
        page.locator("#findings .legend").first.wait_for()
        for width in (1500, 1032, 500):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(1000)
            assert page.evaluate(above) <= 0


_ON_PAPER = """() => addEventListener('beforeprint', () => {
    const plots = [...document.querySelectorAll('.panel:not([hidden]) .plot, #compare-plot')];
    const svgs = plots.map(plot => plot.querySelector('svg.main-svg')).filter(Boolean);
    printed = {visible: plots.length, drawn: svgs.length, widest: Math.max(...svgs.map(svg => svg.clientWidth)),
        tables: [...document.querySelectorAll('#compare-table, [data-table] table')].filter(t => !t.closest('[hidden]'))
            .map(table => table.tBodies[0].rows.length > 0)};
})"""


def test_a_thousand_checkpoints_can_be_read(chromium, tmp_path):
    """Few elements at first, all after a press; the whole table is in the file."""
    values = np.random.default_rng(7).uniform(0.1, 0.9, (1000, 6)).round(4)
    rows = [row(f"m{i:04}", f"set {d}", value=value) for (i, d), value in np.ndenumerate(values)]
    file = clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    assert file.stat().st_size < 3e6
    with opened(chromium, file) as page:
        lines = page.locator("#board-0 tbody tr")
        assert lines.count() == 100
        assert page.evaluate("document.querySelectorAll('*').length") < 10_000
        page.get_by_label("Model", exact=True).fill("m0999")
        assert lines.count() == 1
        page.get_by_label("Model", exact=True).fill("")
        page.locator("#board-0").get_by_role("button", name="Show all 1,000 lines").click()
        assert lines.count() == 1000


def test_prints(chromium, run):
    with opened(chromium, run.page, scheme="dark") as page:
        walk(page)
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert (
            page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()") == "#ffffff"
        )
        page.wait_for_function("document.querySelector('#scaling .plot .xtick text').style.fill === 'rgb(22, 25, 31)'")


def test_a_regular_expression_between_slashes_is_searched_for(chromium, tmp_path):
    with opened(chromium, open_clip_like(tmp_path)) as page:
        lines, field = page.locator("#board-0 tbody th"), page.get_by_label("Model", exact=True)
        wrong = page.locator("#filter-wrong")
        field.fill("/b-(16|32)$/")
        assert lines.count() == 4
        assert set(page.locator("#overview tbody mark").all_inner_texts()) == set(), "the name goes on after it"
        field.fill("/^vit-b-(16|32)/")
        assert set(page.locator("#board-0 tbody mark").all_inner_texts()) == {"ViT-B-16", "ViT-B-32"}
        assert (wrong.inner_text(), field.get_attribute("aria-invalid")) == ("", "false")
        field.fill("/b-(16/")
        assert wrong.inner_text() == "Not a regular expression (unterminated group), so all are shown."
        assert (lines.count(), field.get_attribute("aria-invalid")) == (6, "true")
        field.fill("b-(16")
        assert (lines.count(), wrong.inner_text()) == (0, ""), "words mean what they are"


def test_a_line_leads_to_its_point_in_the_scaling_plot(chromium, tmp_path):
    rows = [
        row(f"m{i}", dataset, value=1 - 0.9 * 10 ** (-0.1 * i), gmacs_total=10.0**i)
        for dataset in ("digits", "icons") for i in range(2, 8)
    ]  # fmt: skip
    rows.append(row("of no compute", "icons", gmacs=None))
    file = clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    ring = "plot => plot.data.filter(t => t.meta?.ring).map(t => [t.name, t.x[0], t.y[0]])"
    with opened(chromium, file) as page:
        page.locator("select[data-switch=boards]").select_option("icons")
        board = page.locator("#leaderboard .panel:visible")
        assert board.locator("tbody tr", has_text="of no compute").locator(".inplot").count() == 0
        board.locator("tbody tr", has_text="m3").locator(".inplot").click()
        plot = page.locator("#scaling .panel:visible .plot")
        page.wait_for_function("document.querySelector('#scaling .panel:not([hidden]) .plot').data?.length > 3")
        assert page.locator("#scaling select option:checked").inner_text() == "icons · Top-1"
        assert plot.evaluate(ring) == [["m3", 1e3, pytest.approx(90 * 10**-0.3, rel=1e-5)]]
        assert "scaling=" in page.url
        page.locator("#overview button.v").first.click()
        page.locator("#origin").get_by_role("button", name="Show in the scaling plot").click()
        page.wait_for_function("!document.querySelector('dialog[open]')")
        assert len(page.locator("#scaling .panel:visible .plot").evaluate(ring)) == 1


def test_a_table_is_cited(chromium, tmp_path):
    rows = [row("a", study="open_clip", reference="x"), row("b", "icons", study="</script>mine")]
    file = clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    with opened(chromium, file) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("#leaderboard").get_by_role("button", name="Cite").click()
        dialog = page.get_by_role("dialog", name="What this table rests on")
        text = dialog.locator("pre").inner_text()
        assert page.evaluate("navigator.clipboard.readText()").strip() == text.strip()
        assert re.findall(r"@\w+\{(\w+),", text) == ["clipeval", "cherti2023", "open_clip"]
        assert f"version = {{{clipeval.__version__}}}" in text
        page.keyboard.press("Escape")
        page.locator("#overview").get_by_role("button", name="Cite").click()
        assert "\n% </script>mine: see the column reference of its rows\n" in dialog.locator("pre").inner_text()


def test_nothing_grows_when_it_comes_into_view(chromium, run):
    """What lies below would move under a finger."""
    height = "document.documentElement.scrollHeight"
    with opened(chromium, run.page) as page:
        page.wait_for_function("document.querySelector('#compare-plot').dataset.drawn")
        before = page.evaluate(height)
        for at in range(0, before, 500):
            page.evaluate(f"scrollTo(0, {at})")
            page.wait_for_timeout(50)
        assert page.evaluate(height) == before
