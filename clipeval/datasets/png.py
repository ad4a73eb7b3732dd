"""The chunks of a PNG file: what its header says of its pixels, and the file without texts and profiles."""

from __future__ import annotations

from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_METADATA = (b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf")
"""They change no pixel. Some are compressed, and Pillow gives up an image where one unpacks to more than a megabyte."""
_GREY_ALPHA, _COLOUR_ALPHA = 4, 6


def without_metadata(data: bytes) -> bytes:
    """``data`` without the chunks of metadata of a PNG file; as it is where there are none, or it is another file."""
    if not data.startswith(_SIGNATURE) or not any(kind in data for kind in _METADATA):
        return data
    view = memoryview(data)
    kept: list[bytes | memoryview] = [_SIGNATURE]
    end = len(_SIGNATURE)
    for kind, start, end in _chunks(data):
        if kind not in _METADATA:
            kept.append(view[start:end])
    kept.append(view[end:])  # of a file that is cut off: Pillow shall see it as it is
    return b"".join(kept)


def depth_and_alpha(data: bytes) -> tuple[int, bool] | None:
    """Bits per channel, and whether pixels may be transparent; None for what is no PNG file."""
    if not data.startswith(_SIGNATURE) or len(data) < 26 or data[12:16] != b"IHDR":
        return None
    return data[24], data[25] in (_GREY_ALPHA, _COLOUR_ALPHA) or _has_transparent_colour(data)


def _has_transparent_colour(data: bytes) -> bool:
    for kind, _, _ in _chunks(data) if b"tRNS" in data else ():
        if kind == b"IDAT":
            return False
        if kind == b"tRNS":
            return True
    return False


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of every whole chunk."""
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], at, end
        at = end
