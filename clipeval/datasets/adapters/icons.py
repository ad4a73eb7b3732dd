"""Glyphs of the icon fonts inside the QtAwesome wheel: small, real, captioned images that need no download.

An icon's own name is its caption (``account-alert-outline`` -> "account alert outline"). Icons are held out by what
they show, across all fonts and styles, so that a model pre-trained on the other icons has seen neither the held-out
drawings nor their names. QtAwesome and Qt are never imported: only their files are read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval.errors import DataError, UsageError, suggest

if TYPE_CHECKING:
    from PIL import Image, ImageFont

FONTS = {
    "material": "materialdesignicons6-webfont",
    "phosphor": "phosphor",
    "remix": "remixicon",
    "elusive": "elusiveicons-webfont",
    "codicon": "codicon",
    "fontawesome-solid": "fontawesome6-solid-webfont",
    "fontawesome-regular": "fontawesome6-regular-webfont",
    "fontawesome-brands": "fontawesome6-brands-webfont",
}
"""Font name -> how its two files in the wheel start: ``STEM-VERSION.ttf`` and ``STEM-charmap-VERSION.json``."""

STYLE_WORDS = frozenset({"outline", "line", "fill", "bold", "thin", "light", "variant", "alt"})
"""Words that tell how an icon is drawn, not what it shows."""

_HELD_OUT_EVERY = 4
_INK_SHARE = 0.875
"""The em square, and the larger side of a glyph that exceeds it, as a share of the image's side."""


@dataclass(frozen=True)
class Glyph:
    """One drawing of one font."""

    font: str
    name: str
    """As in the font's own list: ``account-alert-outline``."""
    caption: str
    codepoint: int


def load_glyphs(fonts: tuple[str, ...] = tuple(FONTS)) -> list[Glyph]:
    """Every drawing of ``fonts`` once, fonts in the given order, names in alphabetical order.

    Where a font lists one drawing under several names, the first in the alphabet is kept. Raises UsageError for a font
    that is not in ``FONTS`` and DataError when QtAwesome is not installed.
    """
    glyphs = []
    for font in fonts:
        drawings: dict[int, str] = {}
        for name, codepoint in sorted(json.loads(_font_file(font, "-charmap-[0-9]*.json").read_text("utf-8")).items()):
            drawings.setdefault(int(codepoint, 16), name)
        for codepoint, name in drawings.items():
            if name != "blank":
                glyphs.append(Glyph(font, name, name.replace("-", " "), codepoint))
    return glyphs


def is_held_out(name: str) -> bool:
    """Whether an icon's name belongs to the test split: about a quarter do.

    Decided by a hash of the name's words without order, repetition and style words, so that ``arrow-up-circle``,
    ``circle-arrow-up`` and ``arrow-circle-up-bold`` are on the same side.
    """
    words = set(name.split("-"))
    shown = " ".join(sorted(words - STYLE_WORDS or words))
    digest = hashlib.sha256(f"icons {shown}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _HELD_OUT_EVERY == 0


def render(glyph: Glyph, size: int) -> Image.Image:
    """Draw a glyph black on white, centred: an RGB image of ``size`` x ``size`` pixels.

    The em square fills 7/8 of the side; a drawing wider or higher than that is scaled down to it.
    """
    from PIL import Image

    limit = _INK_SHARE * size
    ink = _ink(glyph, limit, size)
    if (extent := max(ink.size)) > limit:
        ink = _ink(glyph, limit * limit / extent, size)
    image = Image.new("RGB", (size, size), "white")
    corner = ((size - ink.width) // 2, (size - ink.height) // 2)
    image.paste("black", (*corner, corner[0] + ink.width, corner[1] + ink.height), ink)
    return image


def _ink(glyph: Glyph, pixels: float, size: int) -> Image.Image:
    """How dark the drawing is, cut to its edges, where the em square has a side of ``pixels``."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (3 * size, 3 * size))
    middle = 1.5 * size
    ImageDraw.Draw(canvas).text((middle, middle), chr(glyph.codepoint), 255, _font(glyph.font, pixels), anchor="mm")
    return canvas.crop(canvas.getbbox())


@cache
def _font(font: str, pixels: float) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(_font_file(font, "-[0-9]*.ttf"), pixels, layout_engine=ImageFont.Layout.BASIC)


def _font_file(font: str, pattern: str) -> Path:
    if font not in FONTS:
        raise UsageError(f"'{font}' is not an icon font.{suggest(font, FONTS)} Fonts: {', '.join(FONTS)}.")
    package = importlib.util.find_spec("qtawesome")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "builtin:icons: the icon fonts come with the package QtAwesome, which is not installed. "
            "Install it with: pip install 'clipeval[demo]'"
        )
    folder = Path(package.submodule_search_locations[0]) / "fonts"
    files = sorted(folder.glob(FONTS[font] + pattern))
    if not files:
        raise DataError(f"{folder}: no file {FONTS[font]}{pattern}: this version of QtAwesome has other icon fonts.")
    return files[-1]
