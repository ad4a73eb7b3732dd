"""What a page says to cite is what CITATION.cff and the studies say."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from clipeval.reporting.citations import ALWAYS, citations
from clipeval.results.studies import STUDIES

CFF = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text("utf-8"))


def test_clipeval_and_the_paper_are_cited_as_its_own_file_says():
    ours, paper = citations([]).values()
    assert f"{{{{{CFF['authors'][0]['name']}}}}}" in ours
    assert f"title = {{{CFF['title']}}}" in ours
    assert f"version = {{{CFF['version']}}}" in ours
    [reference] = CFF["references"]
    authors = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in reference["authors"])
    for part in (authors, reference["title"], str(reference["year"]), reference["collection-title"]):
        assert f"{{{part}}}" in paper


def test_every_study_has_its_entry():
    """With the year, first author and number of what ``clipeval list studies`` says to cite."""
    for name, entry in citations(STUDIES).items():
        assert re.match(rf"@\w+\{{{name},\n  author = ", entry)
        assert entry.count("{") == entry.count("}")
        if name not in ALWAYS[:1] and (cite := re.match(r"(\w+) et al\. (\d+), \w+:(\S+)", STUDIES[name].cite)):
            assert f"{{{cite[1]}, " in entry
            assert f"year = {{{cite[2]}}}" in entry
            assert f"{{{cite[3]}}}" in entry
