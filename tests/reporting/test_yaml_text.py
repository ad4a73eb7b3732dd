"""YAML of our own against PyYAML's."""

from __future__ import annotations

import pytest
import yaml

from clipeval.reporting import yaml_text

ODD = ["", " a", "a ", "a: b", "a #b", "#", "- a", "yes", "null", "~", "1", "1.5", "1e5", "0x1", "2026-01-01", "!t"]
ODD += [
    "*a",
    "&a",
    "'q'",
    '"d"',
    "é",
    "模型",
    "\u200b",
    "\x07",
    "\t",
    "😀",
    "%",
    "@a",
    "`",
    "{a}",
    "[a]",
    "a,b",
    "?",
    "|",
    ">",
]


def dumped(document):
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1000)


@pytest.mark.parametrize("text", [*ODD, "a" * 199, "word " * 39, "word " * 400, "a\nb", "a\n", "\n", "é" * 1200])
def test_texts_at_every_depth(text):
    document = {"a": text, "b": [{"c": text, "d": {"e": text, "f": [{"g": text}, {"g": "x", "h": text}]}}]}
    assert yaml_text.as_yaml(document) == dumped(document)
    assert yaml.safe_load(yaml_text.as_yaml(document)) == document


def test_numbers_and_what_is_empty():
    numbers = [0.1, 1e-5, 1.5e-300, 1e22, -0.0, 1 / 3, 5e-324, 3, -7, 10**20, True, None, float("inf"), float("nan")]
    for number in numbers:
        document = {"k": [{"value": number, "args": {"ci_low": number}}], "none": [], "nothing": {}}
        assert yaml_text.as_yaml(document) == dumped(document), number
    assert yaml_text.as_yaml({"model-index": []}) == dumped({"model-index": []})


def test_an_even_document_is_not_left_to_the_library(monkeypatch):
    """It is asked for each text once, whatever the number of results."""
    asked = []
    real = yaml_text._dumped
    monkeypatch.setattr(yaml_text, "_dumped", lambda value: asked.append(value) or real(value))
    results = [{"task": {"type": "t-unseen"}, "metrics": [{"value": k / 7}, {"value": k / 9}]} for k in range(500)]
    document = {"model-index": [{"name": "m-unseen", "results": results}]}
    assert yaml_text.as_yaml(document) == dumped(document)
    assert len(asked) == 2
