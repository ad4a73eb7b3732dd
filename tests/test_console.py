"""Whatever a name holds: what a person sees is one line that shows it and does nothing else."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import characters

from clipeval import console
from clipeval.drawing import Column
from clipeval.names import display_names
from clipeval.plain import json_text, printable
from clipeval.streams import Stream
from clipeval.tables import Sheet

fuzz = settings(max_examples=300, deadline=None, derandomize=True, database=None)
ODD = st.text(
    st.one_of(
        characters(),
        characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Zs", "Mn"]),
        st.sampled_from(":#[]%@/?&=\n\r\t\x1b\x9b\u202e\u200b\U000e0041\ud800hf_A1"),
    )
)


def is_command(line):
    """As GitHub's runner decides it (ActionCommand.cs): ``::`` after white space, or ``##[`` anywhere."""
    return line.lstrip().startswith("::") or "##[" in line


def lines_of(text):
    """As .NET splits lines."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


@fuzz
@given(ODD)
def test_any_text_becomes_one_harmless_line(text):
    shown = printable(text)
    categories = {unicodedata.category(c) for c in shown}
    assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert len(shown.splitlines()) <= 1
    assert not is_command(shown)
    shown.encode("utf-8")
    assert printable(shown) == shown
    assert len(shown) <= 10 * len(text)


@pytest.mark.parametrize(
    "text",
    [
        "Zürich, café (NFD: cafe\u0301), naïve",
        "日本語の名前 한국어 中文\u3000全角",
        "русский ελληνικά हिन्दी ไทย עברית العربية",
        "👍🏽 ❤️ 🇨🇭 ☀︎",
        "a → b ⇒ c, ∀x ∈ ℝ: x² ≥ 0, 95 % ± 1,5 µm “quoted” – dash…",
        "no-break\u00a0space 12\u202f000",
        "C:\\data\\x, a::b, 10:30, [red]x[/red], ## title, #[1]",
        "",
    ],
)
def test_text_of_people_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x9b0m\x7f", r"\x1b[31mred\x9b0m\x7f"),
        ("\u202egnp.exe\u2066\u200f", r"\u202egnp.exe\u2066\u200f"),
        ("a\u2028b\u2029\x85\x0b\x0c", r"a\u2028b\u2029\x85\x0b\x0c"),
        ("\ud800\udcff", r"\ud800\udcff"),
        ("z\u200bw\u200d\ufeff\u00ad\u2060\u3164\u115f\u034f", r"z\u200bw\u200d\ufeff\xad\u2060\u3164\u115f\u034f"),
        ("tag\U000e0041 \U000e0100", r"tag\U000e0041 \U000e0100"),
        ("::error::x", r"\x3a:error::x"),
        (" \u00a0::error::x", " \u00a0\\x3a:error::x"),
        ("a ##[error]x", r"a #\x23[error]x"),
        ("wds:http://me:S3CRET@host/x", "wds:http://***@host/x"),
        ("http://me:S3\x1bCRET@host", "http://***@host"),
    ],
)
def test_what_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


JSON = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=8,
)


@fuzz
@given(JSON, st.booleans())
def test_any_document_is_valid_json_and_harmless(value, ascii_only):
    text = json_text(value, ascii_only=ascii_only)
    assert json.loads(text.encode("ascii" if ascii_only else "utf-8")) == value
    assert not any(map(is_command, lines_of(text)))
    assert not {unicodedata.category(c) for c in text} & {"Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not {c for c in text if unicodedata.category(c) == "Cc"} - {"\n"}


def test_a_document_on_stdout_has_no_secrets(capsys):
    console.show_json({"hf_S3CRETS3CRET": ["http://u:S3CRET@h", ("S3", float("nan"))]})
    assert json.loads(capsys.readouterr().out) == {"hf_***": ["http://***@h", ["S3", None]]}


HOSTILE = ["[red]x[/red]", "[/]", "[link=http://x]y[/link]", ":warning:", "::error::x", "a\nb\x1b[31m", "##[error]x"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("width", [20, 200])
def test_tables_show_names_as_they_are(name, width):
    page = Stream(io.StringIO(), "page", needed=True)
    sheet = Sheet(f"title {name}", Column(name, "name"), Column("lines"))
    sheet.add(name * 3, f"one\n{name}")
    console.out(page, width).print(sheet, name)
    text = page._stream.getvalue()
    if width == 200:
        assert all(text.count(printable(line)) >= 4 for line in name.split("\n"))
    assert not any(map(is_command, lines_of(text)))
    assert "\x1b" not in text


def test_a_text_that_is_broken_makes_no_command():
    """A cell breaks its line where the column ends: there may stand two colons."""
    for pad in range(30):
        page = Stream(io.StringIO(), "page", needed=True)
        sheet = Sheet("", Column("name", "name"), Column("why", "prose"))
        sheet.add("a", "x" * pad + " ::error::y")
        console.out(page, 20).print(sheet)
        assert not any(map(is_command, lines_of(page._stream.getvalue())))


@fuzz
@given(st.lists(ODD, max_size=4))
def test_no_stream_passes_a_command_or_a_control_character(texts):
    """Text of other libraries, which may have several lines and colours."""
    stream = Stream(io.StringIO(), "stream", needed=True)
    for text in texts:
        stream.write(text + "\n")
    written = stream._stream.getvalue()
    assert not any(map(is_command, lines_of(written)))
    assert not {c for c in written if unicodedata.category(c) in ("Cc", "Zl", "Zp")} - set("\n\r\t\x1b")


def test_a_long_message_is_cut_in_its_middle(capsys):
    console.say("begin " + "x" * 1_000_000 + " end")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("begin x")
    assert line.endswith("x end")
    assert len(line) < 5000
    assert "996,010 characters" in line


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("name", HOSTILE)
def test_progress_on_a_terminal_and_elsewhere(name, monkeypatch):
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with console.RunProgress(2) as progress:
            progress.start(name, 10)
            progress.advance(5, 0)
            progress.finish_cell(name)
        text = stream.getvalue()
        assert printable(f"[1/2] {name}") in text
        assert "\x1b[31m" not in text
        assert "\x1b]8" not in text


def test_without_stderr_nothing_goes_to_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    console.say("to nobody")
    with console.RunProgress(1) as progress:
        progress.finish_cell("x")
    assert capsys.readouterr().out == ""


PUBLIC = "ViT-H-14,laion2b_s32b_b79k"


def on_terminal(monkeypatch, width=150):
    """What a terminal shows, from now on."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", str(width))
    return stream


def test_bars_show_the_run_and_what_it_is_at(monkeypatch):
    terminal = on_terminal(monkeypatch)
    with console.RunProgress(4) as progress:
        progress.names = display_names([{"model": PUBLIC, "source": "LAION-2B", "samples_seen": 34.7e9}])
        progress.start(f"{PUBLIC} · digits · linear_probe · test", 10)
        progress.then("scoring")
        bars = progress._live
        progress.expect(0, 0, 0.0)
        run, stretch, beside = bars.tasks
        assert (run.description, run.completed, run.total, run.fields["state"]) == ("cells", 0, 4, "0 of 4")
        assert stretch.description == "digits · linear_probe · test · ViT-H-14 · LAION-2B · 34.7B"
        progress.advance(5, 0)
        assert (stretch.completed, stretch.total, stretch.visible) == (5, 10, True)
        assert "/s" in stretch.fields["state"]
        progress.advance(5, 0)
        assert (stretch.total, stretch.fields["state"], stretch.visible) == (None, "scoring", True)
        assert not beside.visible
        progress.work(f"{PUBLIC} · digits · linear_probe", "choosing C, 7 of at most 17", 6, 17)
        assert (beside.completed, beside.total, beside.visible, stretch.visible) == (6, 17, True, False)
        assert beside.fields["state"] == "choosing C, 7 of at most 17"
        bars.refresh()
        progress.finish_cell("done")
        assert (run.completed, beside.visible) == (1, False)
    assert "choosing C, 7 of at most 17" in terminal.getvalue()


def test_texts_leave_no_bar_at_its_end(monkeypatch):
    on_terminal(monkeypatch)
    with console.RunProgress(1) as progress:
        progress.start("m · texts", 3)
        progress.advance(3, 0)
        assert not progress._live.tasks[1].visible


def test_a_probe_that_takes_long_says_so_in_a_log(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.RunProgress(2) as progress:
        progress.work("m · digits · linear_probe", "choosing C, 1 of at most 17", 0, 17)
        clock[0] = 31.0
        progress.work("m · digits · linear_probe", "choosing C, 2 of at most 17", 1, 17)
        progress.work("m · digits · linear_probe", "choosing C, 3 of at most 17", 2, 17)
    assert capsys.readouterr().err == "[1/2] m · digits · linear_probe: choosing C, 2 of at most 17\n"


def test_a_quiet_run_says_nothing(monkeypatch):
    terminal = on_terminal(monkeypatch)
    with console.RunProgress(1, quiet=True) as progress:
        progress.wait("loading")
        progress.start("m · digits", 1)
        progress.advance(1, 0)
        progress.work("m · digits", "scoring")
        progress.finish_cell("done")
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_bar_is_one_line_whatever_it_is_about(monkeypatch, width):
    terminal = on_terminal(monkeypatch, width)
    bars = console.live()
    bars.add_task("a name that has no end " * 20, total=3, completed=1, state="1,234/s, 3 h 20 min left")
    bars.console.print(bars.get_renderable())
    [line] = terminal.getvalue().splitlines()
    assert "…" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (90, "2 min"),
        (3_540, "59 min"),
        (3_600, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations(seconds, text):
    assert console.duration(seconds) == text


def test_the_time_left_of_a_run_goes_by_the_work_that_was_done(capsys, monkeypatch):
    """Of 1,000 units 100 took 60 s and 100 were not to be had: 800 are left, which take 480 s."""
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.RunProgress(5) as progress:
        progress.expect(7, instead_of=5, work=1_000)
        progress.start("a", 10)
        clock[0] = 60.0
        progress.finish_cell("first", 100)
        progress.finish_cell("second", 100, measured=False)
        progress.finish_cell("third", 700)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "[1/7] first, about 9 min left of the run"
    assert second == "[2/7] second, about 8 min left of the run"
    assert third == "[3/7] third"
