"""Conditions on samples, against Python's own evaluation of the same text row by row."""

import itertools

import pyarrow
import pytest

from clipeval.condition import condition

COLUMNS = {
    "score": [0.1, 0.28, 0.3, -0.5, 2.0],
    "width": [100, 256, 300, 7, 256],
    "language": ["en", "de", "en", "", "it's"],
    "nsfw": [True, False, True, False, False],
}


@pytest.mark.parametrize(
    "text",
    [
        "score > 0.28",
        "score >= 0.28 and not width < 256",
        "0.2 < score <= 0.3",
        "language == 'en' or (width != 256 and score < -0.25)",
        'language == "it\'s"',
        "nsfw == True",
        "score > 1e-1 and width == +256 or language < 'e'",
        "  not (not width > 99 or score == 2)",
        "width > score",
        "width < 99999999999999999999",
    ],
)
def test_rows_are_those_for_which_python_says_so(text):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    expected = [bool(eval(text.strip(), {}, row)) for row in rows]
    parsed = condition(text)
    assert parsed.holds(pyarrow.table(COLUMNS)).tolist() == expected
    assert set(parsed.fields) == {name for name in COLUMNS if name in text}
    assert any(expected)
    assert text in ("nsfw == True", "width < 99999999999999999999", "width > score") or not all(expected)


def test_what_is_missing_is_neither_true_nor_false():
    """Kleene's logic on all pairs: a row is kept where the condition is true whatever the missing value would be."""
    values = [None, 0, 1]
    table = pyarrow.table({"a": [a for a, _ in itertools.product(values, values)], "b": values * 3})
    known = [(a, b) for a, b in itertools.product(values, values)]
    for text in (
        "a == 1 and b == 1",
        "a == 1 or b == 1",
        "not (a == 1 and b == 1)",
        "not a == 1",
        "a != 1 or not b == 0",
    ):
        for (a, b), kept in zip(known, condition(text).holds(table).tolist(), strict=True):
            worlds = itertools.product([a] if a is not None else [0, 1], [b] if b is not None else [0, 1])
            assert kept == all(eval(text, {}, {"a": x, "b": y}) for x, y in worlds), (text, a, b)
    nulls = pyarrow.table({"a": pyarrow.nulls(2)})
    assert condition("a > 0.5").holds(nulls).tolist() == [False, False]
    assert condition("a == 'x'").holds(nulls).tolist() == [False, False]


def test_names_inside_others_and_texts_in_a_dictionary():
    table = pyarrow.table({"meta.score": [1, 2], "kind": pyarrow.array(["x", "y"]).dictionary_encode()})
    parsed = condition("meta.score > 1 and kind == 'y'")
    assert parsed.fields == ("meta.score", "kind")
    assert parsed.holds(table).tolist() == [False, True]


def test_names_between_backticks_may_hold_anything_else():
    table = pyarrow.table({"mix.LAION-2B": [0.2, 0.8], "a b": ["`x`", "y"], "c": [1, 1]})
    parsed = condition("`mix.LAION-2B` < 0.5 and `a b` == '`x`' and c == 1 and `mix.LAION-2B` > 0")
    assert parsed.fields == ("mix.LAION-2B", "a b", "c")
    assert parsed.holds(table).tolist() == [True, False]
    assert condition("`a b` != 'it\\'s `c`'").fields == ("a b",)
    with pytest.raises(ValueError, match="'`a b` - 1' is no field, number or text; write a condition like c == 1"):
        condition("`a b` - 1 > 0", "c == 1")
    with pytest.raises(ValueError, match="not a condition"):
        condition("`a b > 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score = 0.3", "not a condition .*write one like clip_l14_similarity_score > 0.28 and NSFW == 'UNLIKELY'"),
        ("score > 0.3 AND width > 2", "not a condition"),
        ("", "not a condition"),
        ("score", "'score' is no comparison by == != <"),
        ("__import__('os').system('x')", "is no comparison"),
        ("open('x') == 1", r"'open\('x'\)' is no field, number or text"),
        ("score + 1 > 2", r"'score \+ 1' is no field"),
        ("a[0] > 1", "is no field"),
        ("'x'.upper == 1", "is no field"),
        ("x is None", "is no comparison"),
        ("x in (1, 2)", "is no comparison"),
        ("x == None", "'None' is no field, number or text"),
        ("x == -'a'", "is no field"),
        ("x == b'a'", "is no field"),
        ("x == 1j", "is no field"),
        ("f'{x}' == 1", "is no field"),
        ("(lambda: 1) == 1", "is no field"),
        ("(x := 1) == 1", "is no field"),
        ("1 == 1", "compares no field"),
        ("x == 1; y", "not a condition"),
        ("x == \0", "not a condition"),
        ("(" * 400 + "x == 1" + ")" * 400, "not a condition"),
        ("not " * 240 + "x", "is no comparison"),
        ("x == " + "-" * 900 + "1", "is no field"),
        ("x == " + "1" * 5000, "too long"),
    ],
)
def test_what_is_no_condition_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        condition(text)


def test_kinds_that_cannot_be_compared_are_named():
    with pytest.raises(ValueError, match="cannot compare these kinds of values: language holds string"):
        condition("language > 3").holds(pyarrow.table(COLUMNS))
