"""What pixels do not show of an image file, and files of 16 bits and of large chunks."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import shard_writer as writer
from PIL import Image

from clipeval import datasets
from clipeval.config import DatasetEntry
from clipeval.datasets import contents, images, png
from clipeval.errors import DataError
from clipeval_train.input.decode import decode_image

DEEP = np.arange(0, 65536, 91, dtype=np.uint16)[:700].reshape(20, 35)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(colour_type: int, channels: int) -> bytes:
    """16 bits per channel, each the same, by hand: Pillow writes grey ones only."""
    rows = np.repeat(DEEP[..., None], channels, 2).astype(">u2")
    header = struct.pack(">IIBBBBB", DEEP.shape[1], DEEP.shape[0], 16, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def see_through() -> Image.Image:
    image = writer.picture(1, mode="RGBA")
    image.putalpha(99)
    return image


def big_endian_tiff() -> bytes:
    """Pillow writes the order of bytes of the machine only."""
    entries = [(256, 35), (257, 20), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 20), (279, 1400)]
    body = DEEP.astype(">u2").tobytes()
    listed = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in entries)
    return b"MM\0*" + struct.pack(">I", 8 + len(body)) + body + struct.pack(">H", len(entries)) + listed + bytes(4)


SIXTEEN_BIT = {
    "grey PNG": saved(Image.fromarray(DEEP), "PNG"),
    "RGB PNG": deep_png(2, 3),
    "grey and alpha PNG": deep_png(4, 2),
    "RGBA PNG": deep_png(6, 4),
    "TIFF": saved(Image.fromarray(DEEP), "TIFF"),
    "TIFF, the other way round": big_endian_tiff(),
    "PGM": b"P5\n35 20\n65535\n" + DEEP.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", SIXTEEN_BIT)
def test_of_16_bits_the_high_8_are_used(kind: str) -> None:
    data = SIXTEEN_BIT[kind]
    expected = np.repeat((DEEP >> 8)[..., None], 3, 2)
    assert np.array_equal(np.asarray(images.decode(data, "s")), expected)
    assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), expected)
    assert "d" in contents.of_bytes(data).lost
    assert ("a" in contents.of_bytes(data).lost) == ("alpha" in kind or "RGBA" in kind)
    assert contents.of_bytes(data).pixels != contents.of_bytes(data).sha256


def test_colours_of_16_bits_in_a_ppm_are_levels_of_8() -> None:
    data = b"P6\n35 20\n65535\n" + np.repeat(DEEP[..., None], 3, 2).astype(">u2").tobytes()
    assert np.abs(np.asarray(images.decode(data, "s")).astype(int) - (DEEP >> 8)[..., None]).max() <= 1
    assert contents.of_bytes(data).lost == "d"


def test_twelve_bits_of_a_tiff_are_not_taken_for_sixteen() -> None:
    levels = np.arange(0, 4096, 64)
    packed = bytearray()
    for first, second in zip(levels[::2].tolist(), levels[1::2].tolist(), strict=True):
        packed += bytes([first >> 4, (first & 15) << 4 | second >> 8, second & 255])
    entries = [(256, 64), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 96)]
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    end = struct.pack("<H", len(entries)) + listed + bytes(4)
    data = b"II*\0" + struct.pack("<I", 8 + len(packed)) + bytes(packed) + end
    assert np.asarray(images.decode(data, "s"))[0, :, 0].tolist() == (levels >> 4).tolist()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_without_a_white_are_refused(kind: type) -> None:
    data = saved(Image.fromarray(DEEP.astype(kind)), "TIFF")
    with pytest.raises(DataError, match="s: its grey levels are 32-bit or signed numbers without a known white"):
        images.decode(data, "s")


@pytest.mark.parametrize(
    ("data", "lost"),
    [
        (saved(writer.picture(1), "JPEG"), ""),
        (saved(writer.picture(1), "PNG"), ""),
        (saved(writer.picture(1, mode="RGBA"), "PNG"), "a"),
        (saved(writer.picture(1, mode="P"), "PNG"), ""),
        (saved(writer.picture(1, mode="P"), "PNG", transparency=3), "a"),
        (saved(writer.picture(1), "WEBP", lossless=True), ""),
        (saved(see_through(), "WEBP", lossless=True), "a"),
        (saved(writer.picture(1, mode="P"), "GIF", transparency=3, optimize=False), "a"),
        (saved(writer.picture(1, mode="RGBA"), "TIFF"), "a"),
        (saved(writer.picture(1), "BMP"), ""),
        (b"P4\n8 1\n\0", ""),
        (b"", ""),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"not an image", ""),
    ],
)
def test_transparency_is_found_without_decoding(data: bytes, lost: str) -> None:
    assert contents.of_bytes(data).lost == lost


@pytest.mark.parametrize(
    "options",
    [
        {"icc_profile": os.urandom(2_000_000)},
        {"icc_profile": bytes(70_000_000)},
        {"exif": b"Exif\0\0" + bytes(2_000_000)},
        {"pnginfo": "text"},
    ],
)
def test_large_profiles_and_texts_change_no_pixel(options: dict) -> None:
    if options.get("pnginfo"):
        from PIL.PngImagePlugin import PngInfo

        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("prompt", "x" * 3_000_000, zip=True)
        options["pnginfo"].add_text("other", "y" * 3_000_000, zip=True)
    picture = writer.picture(4, mode="P")
    data = saved(picture, "PNG", transparency=7, **options)
    assert np.array_equal(np.asarray(images.decode(data, "s")), np.asarray(picture.convert("RGB")))
    assert contents.of_bytes(data).lost == "a"
    assert len(png.without_metadata(data)) < 5000


def test_a_png_that_is_cut_off_is_still_named() -> None:
    data = saved(writer.picture(4), "PNG", icc_profile=os.urandom(5000))
    for length in (20, 3000, len(data) - 30):
        with pytest.raises(DataError, match="s: cannot decode the image"):
            images.decode(data[:length], "s")
    later = data[:-12] + chunk(b"tEXt", b"a\0b") + data[-12:]
    assert images.decode(later, "s").tobytes() == writer.picture(4).tobytes()


@pytest.fixture
def odd_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    return {
        "0.png": saved(writer.picture(0, mode="RGBA"), "PNG"),
        "1.png": SIXTEEN_BIT["RGBA PNG"],
        "2.png": saved(writer.picture(2), "PNG"),
    }


EXPECTED = (
    "2 of 3 images have transparency, which is dropped: what it covers is seen as the file holds it",
    "1 of 3 images have more than 8 bits per channel, of which the high 8 are used",
)


def test_every_adapter_says_what_is_lost(tmp_path: Path, odd_images: dict[str, bytes]) -> None:
    import datasets as hf

    for name, data in odd_images.items():
        (tmp_path / "folder" / "test" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "test" / "a" / name).write_bytes(data)
        place = tmp_path / "flat" / "test" / ("x" if name == "0.png" else "y")
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    members = [*odd_images.items(), *((f"{k}.cls", b"0") for k in range(3))]
    writer.write_split(tmp_path / "wds", "test", [members])
    cells = [{"bytes": data, "path": None} for data in odd_images.values()]
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["a"])})
    hf.Dataset.from_dict({"image": cells, "label": [0] * 3}, features).to_parquet(str(tmp_path / "t.parquet"))
    for spec in ("folder:folder", "wds:wds", "hf:t.parquet", "hf:flat"):
        scheme, _, place = spec.partition(":")
        for _ in range(2):  # the second time from what is remembered
            dataset = datasets.open_dataset("d", DatasetEntry(spec=f"{scheme}:{tmp_path / place}"))
            assert tuple(said for said in dataset.remarks if "one class only" not in said) == EXPECTED
            assert len(set(dataset.digests or ())) == 3


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path, odd_images: dict[str, bytes]) -> None:
    root = tmp_path / "f" / "test"
    (root / "a").mkdir(parents=True)
    for name in ("a/1.heic", "a/2.HEIC", "a/README", "a/.DS_Store"):
        (root / name).write_bytes(b"x")
    (root / "loose.jpg").write_bytes(b"x")
    entry = DatasetEntry(spec=f"folder:{tmp_path / 'f'}")
    said = r"3 files are not read because of their suffix \(\.heic: 2, without a suffix: 1\)"
    with pytest.raises(DataError, match=rf"is empty \({said}; 1 images are not read because they lie in no clas"):
        datasets.open_dataset("d", entry)
    for suffix, kind in ((".jfif", "JPEG"), (".jpe", "JPEG"), (".AVIF", "AVIF"), (".pnm", "PPM"), (".dib", "BMP")):
        (root / "a" / f"image{suffix}").write_bytes(saved(writer.picture(1), kind))
    dataset = datasets.open_dataset("d", entry)
    assert len(dataset) == 5
    assert all(dataset.image(index).size == (37, 23) for index in range(5))
    assert dataset.remarks[0].startswith("3 files are not read")


def test_files_that_an_image_folder_of_the_hub_leaves_out_are_counted(tmp_path: Path, odd_images: dict) -> None:
    for label in ("a", "b"):
        place = tmp_path / "f" / "test" / label
        place.mkdir(parents=True)
        (place / "0.png").write_bytes(odd_images["2.png"])
        (place / "1.heic").write_bytes(b"x")
    (tmp_path / "f" / "README.md").write_text("photographs")
    remarks = datasets.open_dataset("d", DatasetEntry(spec=f"hf:{tmp_path / 'f'}")).remarks
    assert remarks == ("2 files are not read because of their suffix (.heic: 2)",)
