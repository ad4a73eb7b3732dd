"""``clipeval report``: one self-contained HTML page, and the table as CSV, Markdown and ``model-index``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import config as configuration
from clipeval.files import require_own, write_atomically, write_text
from clipeval.machine import uncollected
from clipeval.names import Names, display_names
from clipeval.paths import expand
from clipeval.plain import plain
from clipeval.reporting import (
    citations,
    curves,
    examples,
    exports,
    findings,
    flips,
    gaps,
    matrix,
    noticed,
    overview,
    scaling,
    tables,
    words,
)
from clipeval.reporting import comparison as pairs
from clipeval.reporting import measured as columns
from clipeval.reporting import origins as provenance
from clipeval.reporting import rows as table
from clipeval.reporting.boards import Board, boards
from clipeval.reporting.figures import Panel
from clipeval.reporting.library import Libraries
from clipeval.results.columns import records
from clipeval.results.reading import Results
from clipeval.results.table import write_csv
from clipeval.stats.significance import holm
from clipeval.version import __version__

if TYPE_CHECKING:
    import pandas as pd

_TEMPLATES = Path(__file__).parent / "templates"
_STYLES = ("style.css", "findings.css")
_SCRIPTS = (
    "ground",
    "origin",
    "plots",
    "points",
    "search",
    "columns",
    "tables",
    "menus",
    "findings",
    "compare",
    "examples",
    "address",
    "paper",
)
_PLOTLY = Path(__file__).parent / "plotly" / "plotly-basic.min.js"
"""The bundle of plotly.js with scatter, bar and pie only, as its makers publish it (plotly.js-basic-dist-min 4.1.1)."""
_MARK, _HEAD = b"<title>clipeval report", 4096
FILES = ("index.html", "results.csv", "report.md", "model-index.yaml")
CARDS = "model-index"


@uncollected()
def report(results: Results, out: str | Path, config: configuration.Config | str | Path | None = None) -> Path:
    """Write ``index.html``, ``results.csv``, ``report.md`` and ``model-index.yaml`` into the folder ``out``, and below
    it, in ``model-index``, what the model card of each checkpoint holds of these.

    ``results`` are a results folder, a ``.parquet`` or ``.csv`` table, a DataFrame, a published study, or a list of
    these, which are joined. ``config`` is a configuration or its file, as for ``run``: it names suites, main metrics
    and where the captions of retrieval examples are. Returns the path of the page. Raises UsageError for what is no
    results table, MeasureError for one without rows, and StoreError when ``out`` cannot be written.
    """
    if not isinstance(config, configuration.Config):
        config = configuration.load(config)
    out = expand(out)
    _refuse_foreign(out)
    rows = table.read(results, config)
    leaderboards = boards(rows, config)
    named = rows[["model", "arch", "source", "pretrained", "samples_seen"]].drop_duplicates()
    names = display_names(records(named))
    write_text(out / "index.html", _page(rows, leaderboards, config, names))
    write_text(out / "report.md", exports.markdown(leaderboards, noticed.noticed(rows), names))
    cards = exports.write_cards(rows, out / CARDS)
    write_atomically(out / "model-index.yaml", partial(exports.write_model_index, cards))
    write_atomically(out / "results.csv", partial(write_csv, rows.drop(columns=list(table.HELPERS))))
    return out / FILES[0]


def _refuse_foreign(out: Path) -> None:
    def own() -> bool:
        page = out / FILES[0]
        return page.is_file() and _MARK in page.read_bytes()[:_HEAD] and not (out / "ledger.jsonl").exists()

    require_own(out, (*FILES, CARDS), own, "an earlier report")


def _page(rows: pd.DataFrame, leaderboards: Sequence[Board], config: configuration.Config, names: Names) -> str:
    from markupsafe import Markup

    scaled, missing = scaling.scaling(rows, config), gaps.gaps(rows)
    panels = {
        "probes": curves.probe_panels(rows, config, names),
        "learning": curves.learning_panels(rows, config, names),
    }
    drawn = [*(plot.panel for plot in scaled.plots), *(panel for found in panels.values() for panel in found)]
    figures = {panel.id: panel.figure for panel in drawn}
    measured = columns.measured(rows, config)
    summary, heat = overview.overview(rows, measured, config), matrix.matrices(measured, config)
    comparison, libraries = pairs.compare(rows, config), Libraries(config)
    galleries, gallery_gaps = examples.galleries(rows, libraries)
    pictures = examples.pictures(galleries)
    samples = flips.samples(comparison, rows, libraries, pictures)
    scripts = {"plotly": _inline(_PLOTLY.read_text("utf-8")), "script": _inline(_script())}
    cited = citations.citations(sorted(rows["study"].dropna().unique()))
    documents = {
        "rows": provenance.columns(rows),
        "figures": plain(figures),
        "pairs": _pairs(comparison) | {"samples": samples},
        "pictures": list(pictures),
        "tables": tables.tables(rows, names, summary, leaderboards, heat)
        | {
            "plots": [[plot.panel.id, *plot.cell] for plot in scaled.plots],
            "citations": cited,
            "always": citations.ALWAYS,
        },
    }
    return str(
        _environment()
        .get_template("page.html.j2")
        .render(
            panels
            | {name: Markup(text) for name, text in scripts.items()}
            | {
                "facts": provenance.facts(rows),
                "names": names,
                "overview": summary,
                "boards": leaderboards,
                "matrices": heat,
                "comparison": comparison,
                "galleries": galleries,
                "pictures": pictures,
                "gallery_gaps": gallery_gaps,
                "gaps": missing,
                "scaling": scaled,
                "findings": findings.findings(rows, scaled, leaderboards, missing, config),
                "noticed": noticed.noticed(rows),
                "sources": sorted(rows["source"].dropna().unique()),
                "archs": sorted(rows["arch"].dropna().unique()),
                "losses": not all(scale.percent for board in leaderboards for scale in board.scales),
                "limited": bool((rows["good"] & (rows["status"] == "limited").fillna(False)).any()),
                "earlier": int((rows["good"] & ~rows["final"]).sum()),
                "version": __version__,
                "absent": _absent(
                    panels | {"scaling": [plot.panel for plot in scaled.plots]}, comparison, galleries, gallery_gaps
                ),
                "policy": _policy(scripts.values()),
                "style": Markup("".join((_TEMPLATES / name).read_text("utf-8") for name in _STYLES)),
                "documents": {name: Markup(provenance.as_json(found)) for name, found in documents.items()},
            }
        )
    )


def _script() -> str:
    """The parts of the page's script as one, which shares nothing with Plotly's."""
    parts = [(_TEMPLATES / f"{name}.js").read_text("utf-8") for name in _SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _environment() -> Any:
    """Templates that escape every value which is not marked as HTML of our own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "percent": words.percent,
        "shown": words.shown,
        "groupby_order": _grouped,
        "same_dataset": _same_dataset,
        "sum_models": lambda gaps: sum(len(gap.models) for gap in gaps),
    }
    return found


def _grouped(items: Iterable[Any], attribute: str) -> list[tuple[str, list[Any]]]:
    """Items by an attribute, in the order in which its values first appear."""
    groups: dict[str, list[Any]] = {}
    for item in items:
        groups.setdefault(attrgetter(attribute)(item), []).append(item)
    return list(groups.items())


def _same_dataset(galleries: Sequence[examples.Gallery], one: examples.Gallery) -> list[int]:
    """The places of the other galleries of its data set."""
    return [i for i, other in enumerate(galleries) if other is not one and other.dataset == one.dataset]


def _absent(
    panels: dict[str, list[Panel]], comparison: pairs.Comparison, galleries: Sequence[Any], lacking: Sequence[str]
) -> list[str]:
    """What the page has no section for, and what would be needed."""
    needed = {
        "scaling plots (checkpoints of known compute, gmacs_total)": panels["scaling"],
        "comparisons (per-sample outcomes of two checkpoints on the same samples: report the folder that clipeval run "
        "wrote, with samples in it)": comparison.pairs,
        f"retrieval examples ({lacking[0].rstrip('.') if lacking else ''})": galleries,
        "linear probes": panels["probes"],
        "learning curves (several checkpoints of one run)": panels["learning"],
    }
    return [what for what, found in needed.items() if not found]


def _inline(script: str) -> str:
    """A script that may stand inside HTML: nothing in it ends the element or opens a comment."""
    return script.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Iterable[str]) -> str:
    """Only our own scripts run, by their digests, and nothing is loaded from anywhere."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _pairs(comparison: pairs.Comparison) -> dict[str, Any]:
    """The comparisons as the page's script reads them: p as it is and corrected over the cells of two checkpoints."""
    found = {}
    for (a, b), cells in comparison.pairs.items():
        p = [cell.p_two_sided for cell in cells.values()]
        corrected = holm(np.array(p)).tolist()
        found[f"{a}-{b}"] = [
            [place, *(round(x, 7) for x in (d.difference, *d.interval)), *both, d.lost, d.won, d.n, d.test]
            for (place, d), *both in zip(cells.items(), p, corrected, strict=True)
        ]
    named = [[cell.title, cell.metric] for cell in comparison.cells]
    return {"cells": named, "rows": comparison.rows, "pairs": found}
