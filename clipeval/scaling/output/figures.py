"""Figures that a notebook shows, whatever it has imported before."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape
from typing import Any

from matplotlib.figure import Figure

COMBINED = "scaling"
"""The name of the figure that has all panels."""
_DPI = 110
_MOST_SHOWN = 12


class Picture(Figure):
    """A matplotlib Figure made without pyplot, which a notebook shows as it shows those of pyplot."""

    def _repr_png_(self) -> bytes:
        page = io.BytesIO()
        self.savefig(page, format="png", dpi=_DPI, bbox_inches="tight")
        return page.getvalue()


class Figures(dict[str, Picture]):
    """Figures by name. A notebook shows the combined one; of more than fit into one, the first twelve."""

    @property
    def combined(self) -> Picture:
        """The figure with all panels, or the first one where there is none."""
        return self.get(COMBINED) or next(iter(self.values()))

    def __repr__(self) -> str:
        return f"Figures: {', '.join(self)}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        plain = {"text/plain": repr(self)}
        if not self:
            return plain
        if COMBINED in self or len(self) == 1:
            return plain | {"image/png": self.combined._repr_png_()}
        shown = list(self.items())[:_MOST_SHOWN]
        pictures = [
            f'<img alt="{escape(name)}" src="data:image/png;base64,{b64encode(figure._repr_png_()).decode()}">'
            for name, figure in shown
        ]
        more = f"<div>and {len(self) - len(shown)} more</div>" if len(self) > len(shown) else ""
        return plain | {"text/html": "\n".join(pictures) + more}
