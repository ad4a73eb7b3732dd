"""A bar in a notebook, which needs nothing but IPython."""

from __future__ import annotations

import io
import time
from typing import Any

from rich.console import Console
from rich.progress import Progress

_SECONDS_BETWEEN = 0.25
_WIDTH = 110


class NotebookProgress(Progress):
    """A rich Progress that draws itself into the output of a cell. (rich's own asks for ipywidgets and a browser.)"""

    def __init__(self, *columns: Any, **settings: Any) -> None:
        super().__init__(*columns, **settings, disable=True)  # nothing goes to the terminal
        self._handle: Any = None
        self._drawn = 0.0

    def start(self) -> None:
        """Draw it for the first time."""
        from IPython.display import display

        if self._handle is None:
            self._handle = display(self._picture(), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Leave nothing behind."""
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)
            self._handle = None

    def update(self, *args: Any, **changes: Any) -> None:
        """What a task has done, drawn four times a second."""
        super().update(*args, **changes)
        if self._handle is not None and time.monotonic() - self._drawn > _SECONDS_BETWEEN:
            self._drawn = time.monotonic()
            self._handle.update(self._picture(), raw=True)

    def _picture(self) -> dict[str, str]:
        return in_html([self.get_renderable()], _WIDTH)


def in_html(renderables: list[Any], width: int) -> dict[str, str]:
    """What rich would draw, as a MIME bundle."""
    console = Console(record=True, width=width, force_jupyter=False, force_terminal=True, file=io.StringIO())
    for renderable in renderables:
        console.print(renderable)
    html = console.export_html(inline_styles=True, code_format="<pre style='line-height:1.2'>{code}</pre>", clear=False)
    return {"text/plain": console.export_text(), "text/html": html}
