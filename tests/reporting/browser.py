"""Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

NO_BROWSER = (
    "no chromium on this machine, which the tests of the report need. Install it with: apt-get install chromium"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window. Raises RuntimeError where none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise RuntimeError(NO_BROWSER)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, file: Path, width: int = 1400, scheme: str = "light") -> Iterator[Page]:
    """A page of its own. On leaving: it has written no error and has asked no host for anything."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", device_scale_factor=1
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    own = file.resolve().as_uri()

    def refuse(route):
        if route.request.url.split("#")[0] == own:
            route.continue_()
        else:
            complaints.append(f"request: {route.request.url}")
            route.abort()

    context.route("**/*", refuse)
    try:
        page.goto(own)
        yield page
        assert complaints == []
    finally:
        context.close()


def walk(page: Page) -> None:
    """Scroll through the page, so that every plot is drawn."""
    height = page.evaluate("document.documentElement.scrollHeight")
    for top in range(0, height, 700):
        page.evaluate("top => scrollTo(0, top)", top)
        page.wait_for_timeout(60)
    page.wait_for_function("[...document.querySelectorAll('.panel:not([hidden]) .plot')].every(p => p.dataset.drawn)")
    page.wait_for_function("[...document.querySelectorAll('.plot[data-drawn]')].every(p => p.querySelector('svg'))")
