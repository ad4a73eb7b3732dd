"""Image files that mean harm."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def png(width: int, height: int, bits: int = 1) -> bytes:
    """A grey PNG of zeros, of any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeezer = zlib.compressobj(9)
    row = bytes(1 + (width * bits + 7) // 8)
    rows = b"".join(squeezer.compress(row * min(4096, height - at)) for at in range(0, height, 4096))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    ends = chunk(b"IDAT", rows + squeezer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + ends


def jpeg(width: int, height: int, scans: int = 0, progressive: bool = True) -> bytes:
    """A grey JPEG whose last scan is repeated ``scans`` times: each makes the decoder go over all pixels again."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(buffer, "JPEG", progressive=progressive)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    end = data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * scans + data[end:]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(hello) show\n%%EOF\n"


def stand_in_ghostscript(folder: Path) -> Path:
    """A program ``gs`` in ``folder``; returns the file that it leaves when somebody starts it."""
    marker = folder / "started"
    for name in ("gs", "gswin64c", "gswin32c"):
        (folder / name).write_text(f"#!/bin/sh\necho started >> {marker}\n")
        (folder / name).chmod(0o755)
    return marker
