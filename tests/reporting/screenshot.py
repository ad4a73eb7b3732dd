"""A picture of a page for the README: ``python -m tests.reporting.screenshot OUT.png INDEX.html [PLOT]``

PLOT is the scaling plot to show, as its menu names it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from browser import chromium, opened, walk  # noqa: E402

_WIDTH = 1400
_SECTIONS = ("overview", "scaling", "examples")


def main(out: str, page_file: str, plot: str = "") -> None:
    """Photograph the head and some sections of a page."""
    with chromium() as browser, opened(browser, Path(page_file), _WIDTH) as page:
        walk(page)
        page.evaluate(
            "ids => document.querySelectorAll('main > section').forEach(s => s.hidden = !ids.includes(s.id))",
            list(_SECTIONS),
        )
        if plot:
            page.select_option("#scaling select", label=plot)
            walk(page)
        page.evaluate("scrollTo(0, 0)")
        bottom = page.evaluate(
            "ids => Math.max(...ids.map(id => document.getElementById(id).getBoundingClientRect().bottom))",
            list(_SECTIONS),
        )
        clip = {"x": 0, "y": 0, "width": _WIDTH, "height": bottom + 24}
        page.screenshot(path=out, full_page=True, clip=clip)


if __name__ == "__main__":
    main(*sys.argv[1:])
