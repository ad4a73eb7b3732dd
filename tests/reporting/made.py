"""Tables and pages that tests make for themselves, and a reader of HTML."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval.results.schema import to_frame

HOSTILE = "</script><script>hacked=1</script><img src=x onerror=hacked=1>\"'&{{7*7}}<b>=1+1"


def row(model="a", dataset="digits", metric="acc1", value=0.5, **more):
    """One row of a results table."""
    facts = {"arch": "nano", "source": "toy", "source_family": "toy", "samples_seen": 1000.0, "gmacs": 0.5}
    measured = {"task": "zeroshot_classification", "status": "ok", "n": 100, "higher_is_better": True}
    return facts | measured | {"model": model, "dataset": dataset, "metric": metric, "value": value} | more


def table(rows, folder: Path) -> Path:
    """The rows as a results folder without a ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    to_frame(rows).to_parquet(folder / "results.parquet", index=False)
    return folder


def measured(root: Path) -> tuple[Path, Path]:
    """Two random checkpoints and a later one of the first run, measured on a folder and on captioned images: the
    results folder, and the configuration that names the data."""
    tiny_checkpoint(root / "run/a/checkpoints/000500.pt", 0, source="toy-a", samples_seen=500)
    tiny_checkpoint(root / "run/a/checkpoints/001000.pt", 1, source="toy-a", samples_seen=1000)
    tiny_checkpoint(root / "run/b/checkpoints/001000.pt", 2, source="toy-b", samples_seen=1000)
    for name in "ab":
        (root / f"run/{name}/log.jsonl").write_text('{"samples": 10, "loss": 3.5}\n{"samples": 20, "loss": 2.5}\n{"sam')
    image_folder(root / "colours", per_class={"train": 5, "test": 4})
    caption_shards(root / "pairs", images=23)
    config = root / "benchmarks.yaml"
    config.write_text(f"datasets:\n  colours: folder:{root}/colours\n  pairs: wds:{root}/pairs\n")
    clipeval.run(
        [str(path) for path in sorted((root / "run").glob("*/checkpoints/*.pt"))],
        ["colours", "pairs"],
        ["classification", "retrieval", "probe"],
        config=config,
        out=root / "results",
        shots=[1, 2, None],
        workers=0,
    )
    return root / "results", config


@dataclass
class Element:
    """A tag with its attributes, its own text and children."""

    tag: str
    attributes: dict = field(default_factory=dict)
    children: list = field(default_factory=list)

    def all(self, tag, **attributes):
        """Every element below with this tag and these attributes, in order."""
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and all(child.attributes.get(k.rstrip("_")) == v for k, v in attributes.items()):
                    yield child
                yield from child.all(tag, **attributes)

    def one(self, tag, **attributes):
        """The first of ``all``."""
        return next(self.all(tag, **attributes))

    @property
    def text(self):
        """All text inside, without repeated blanks."""
        return " ".join("".join(c if isinstance(c, str) else c.text for c in self.children).split())


class _Reader(HTMLParser):
    _VOID = ("meta", "link", "img", "input", "br")

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = Element("root")
        self._open = [self.root]

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes))
        self._open[-1].children.append(element)
        if tag not in self._VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data):
        self._open[-1].children.append(data)


def parse(page: Path) -> Element:
    """The page as a tree; every element must be closed by its own end tag."""
    reader = _Reader()
    reader.feed(page.read_text("utf-8"))
    assert len(reader._open) == 1
    return reader.root


def data(tree: Element, name: str):
    """An inlined JSON document."""
    return json.loads("".join(tree.one("script", id=name).children))


def column(rows: dict, name: str, number: int):
    """A cell of the inlined table: as the page's script reads it."""
    found = rows.get(name)
    if found is None:
        return None
    if "same" in found:
        return found["same"]
    if "cells" in found:
        return found["cells"][number]
    key = rows[found.get("of", name)]
    code = 0 if "same" in key else codes(key)[number]
    return None if code < 0 else found["values"][code]


def codes(found: dict) -> list[int]:
    """A column's codes, one per row."""
    runs = found["runs"]
    return [code for code, count in zip(runs[::2], runs[1::2], strict=True) for _ in range(count)]


def drawn(tree: Element, kind: str, title: str) -> dict:
    """The inlined table of a kind (``board``, ``heat``, ``overview``) whose title begins so."""
    tables = data(tree, "tables")["tables"]
    return next(found for name, found in tables.items() if name.startswith(kind) and found["title"].startswith(title))


def shown(tree: Element, cell) -> str:
    """What a cell of an inlined table says: its value with the interval, or why it has none."""
    rows, missing = data(tree, "rows"), data(tree, "tables")["missing"]
    if cell is None:
        return "not in these results"
    if not isinstance(cell, list) and str(cell) in missing:
        return f"missing: {missing[str(cell)]}"
    value, low, high = (
        cell if isinstance(cell, list) else (column(rows, n, cell) for n in ("value", "ci_low", "ci_high"))
    )
    return f"{100 * value:.1f}" + ("" if low is None else f" {100 * low:.1f}–{100 * high:.1f}")


def joined(*folders: Path) -> pd.DataFrame:
    """The tables of several results, one below the other."""
    return pd.concat([clipeval.read_results(folder) for folder in folders], ignore_index=True)
