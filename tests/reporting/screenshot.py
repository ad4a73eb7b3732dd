"""A picture of a page's first screen for the README: ``python tests/reporting/screenshot.py OUT.png INDEX.html``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from browser import chromium, opened, walk  # noqa: E402

_WIDTH = 1400


def main(out: str, page_file: str) -> None:
    """Photograph the head of a page and what it finds."""
    with chromium() as browser, opened(browser, Path(page_file), _WIDTH) as page:
        walk(page)
        page.evaluate("document.querySelectorAll('main > section').forEach(s => s.hidden = s.id !== 'findings')")
        page.add_style_tag(content=".totop {display: none}")
        page.evaluate("scrollTo(0, 0)")
        bottom = page.evaluate("document.getElementById('findings').getBoundingClientRect().bottom")
        page.screenshot(path=out, full_page=True, clip={"x": 0, "y": 0, "width": _WIDTH, "height": bottom + 24})


if __name__ == "__main__":
    main(*sys.argv[1:])
