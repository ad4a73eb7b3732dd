"""The README's picture of the page: ``python -m tests.reporting.screenshot OUT.png [RESULTS]...``

Without RESULTS it shows results/nano, or else the demo's results, or else a published study.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from browser import chromium, opened, walk  # noqa: E402

import clipeval  # noqa: E402

_WIDTH = 1400
_SECTIONS = ("leaderboard", "heatmap", "scaling")


def main(out: Path, results: list[str]) -> None:
    """Render the page and photograph its head and first sections."""
    ours = [folder for folder in ("results/nano", "demo/results") if (Path(folder) / "results.parquet").exists()]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page_file = clipeval.report(results or ours[:1] or ["cherti2023"], folder)
        with opened(browser, page_file, _WIDTH) as page:
            walk(page)
            page.evaluate("scrollTo(0, 0)")
            bottom = page.evaluate(
                "ids => Math.max(...ids.map(id => document.getElementById(id).getBoundingClientRect().bottom))",
                list(_SECTIONS),
            )
            clip = {"x": 0, "y": 0, "width": _WIDTH, "height": bottom + 24}
            page.screenshot(path=out, full_page=True, clip=clip)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
