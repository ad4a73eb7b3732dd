"""Images by a list of formats, from regular files, within bounds; and the bytes that the fingerprint is of."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import shard_writer as writer
from hostile_images import EPS, jpeg, png, stand_in_ghostscript
from PIL import EpsImagePlugin, Image, features

from clipeval.datasets import images
from clipeval.errors import DataError
from clipeval_train.input.bad import BadSample
from clipeval_train.input.decode import decode_image

KINDS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", *(["AVIF"] if features.check("avif") else [])]
OTHERS = ["TGA", "PCX", "ICO", "ICNS", "SGI", "DDS", "SPIDER", "MSP", "XBM", "EPS", "PDF", "JPEG2000"]


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("from_file", [False, True])
def test_documented_formats_decode_to_pillows_pixels(tmp_path: Path, kind: str, from_file: bool) -> None:
    data = saved(writer.picture(3), kind)
    (tmp_path / "image").write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    source = tmp_path / "image" if from_file else data
    assert np.array_equal(np.asarray(images.decode(source, "s", hashlib.sha256(data).hexdigest())), expected)
    assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_refused_whatever_the_name(tmp_path: Path, kind: str) -> None:
    picture = writer.picture(3, 32, 32).convert({"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(kind, "RGB"))
    try:
        data = saved(picture, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    (tmp_path / "a.jpg").write_bytes(data)
    for source in (data, tmp_path / "a.jpg"):
        with pytest.raises(DataError, match=r"s: cannot decode the image: cannot identify it as JPEG, PNG, .* TIFF"):
            images.decode(source, "s")
    with pytest.raises(BadSample, match="undecodable image"):
        decode_image(data)


def test_no_image_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript, and takes a file for PostScript by its first bytes."""
    marker = stand_in_ghostscript(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "cat.jpg").write_bytes(EPS)
    with pytest.raises(OSError), Image.open(tmp_path / "cat.jpg") as image:  # what the stand-in is for
        image.load()
    assert marker.exists()
    marker.unlink()
    for source in (EPS, tmp_path / "cat.jpg"):
        with pytest.raises(DataError, match="cannot identify"):
            images.decode(source, "s")
    with pytest.raises(BadSample, match="undecodable image"):
        decode_image(EPS)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["pipe", "endless", "sparse"])
def test_what_is_no_image_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(100 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        DataError, match=r"s: cannot decode the image: (it is not a regular file|its 107,374,182,400 b)"
    ):
        images.decode(path, "s")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_many_scans_is_refused_at_once(progressive: bool) -> None:
    """Without the limit 600 scans of 64 megapixels take some ten seconds."""
    data = jpeg(8000, 8000, 600 if progressive else 40, progressive)
    started = time.monotonic()
    with pytest.raises(
        DataError, match=r"s: a JPEG of (60\d|41) scans of 8000 x 8000 pixels; the limit for this size is 22"
    ):
        images.decode(data, "s")
    with pytest.raises(BadSample, match="image too large"):
        decode_image(data)
    assert time.monotonic() - started < 1


def test_scans_are_counted_and_bytes_that_look_like_one_are_not() -> None:
    for scans in (0, 1, 7):
        assert images._scans(jpeg(16, 16, scans, progressive=False)) == 1 + scans
    data = jpeg(16, 16, 0, progressive=False)
    comment = b"\xff\xfe" + (2 + 4000).to_bytes(2, "big") + b"\xff\xda" * 2000
    assert images._scans(data[:2] + comment + data[2:] + b"\xff\xda" * 99) == 1
    assert images._scans(b"\xff" * 1_000_000) == 0
    assert images._scans(b"\xff\xd8\xff\xe0") == 0


def test_an_ordinary_progressive_photograph_decodes() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (2000, 3000, 3), np.uint8)).save(
        buffer, "JPEG", progressive=True
    )
    assert images.decode(buffer.getvalue(), "s").size == (3000, 2000)


@pytest.mark.parametrize("size", [(1, 89_478_450), (89_478_450, 1), (50, 1_789_550), (1, 1_048_577)])
def test_an_image_of_more_lines_than_pillow_has_room_for_is_refused(size: tuple[int, int]) -> None:
    data = png(*size)
    with pytest.raises(DataError, match=rf"s: {size[0]} x {size[1]} pixels: one side is more than the limit of 1,048,"):
        images.decode(data, "s")
    with pytest.raises(BadSample, match="image too large"):
        decode_image(data)


def test_sizes_within_the_limits_decode() -> None:
    assert images.decode(png(1, 1_048_576), "s").size == (1, 1_048_576)
    assert images.decode(png(60_000, 1), "s").size == (60_000, 1)
    assert images.decode(png(9459, 9459), "s").size == (9459, 9459)
    with pytest.raises(DataError, match=r"s: 9460 x 9460 pixels are more than the limit of 89,478,485\."):
        images.decode(png(9460, 9460), "s")


def test_bytes_of_another_digest_are_named(tmp_path: Path) -> None:
    data = saved(writer.picture(3), "PNG")
    with pytest.raises(DataError, match=r"set: sample 7: the image changed during the run\. Wait until"):
        images.decode(data, "set: sample 7", hashlib.sha256(data + b" ").hexdigest())
