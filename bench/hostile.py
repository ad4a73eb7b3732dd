"""Inputs that mean harm or are only broken, made from a generator: words, YAML, tables, ledgers, tars, images,
checkpoints. Half of each kind is a sound one with some of its bytes or values changed."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

MARKER = "executed"
"""A file of this name in the working folder says that code of an input has run."""
PROGRAM = f"open({MARKER!r}, 'w').close()"
WORDS = (
    "", " ", ".", "..", "~", "~root", "~nobody-there", "*", "**", "[", "]", "{", "}", "{}", "{a,b}", "{0..9}", "{0..999999999}",
    "{a,b}" * 22, "\x00", "\x1b[31m", "\x9b", "\r", "\n::error::x", "[/]", "[red]", "[link=x]y", "\u202e", "\ud800", "a" * 300,
    "a/" * 2000, "/" * 5000, "ViT-B-32", "ViT-B-32,", ",", "tag", "hf-hub:", "hf-hub:a/b", "local-dir:", "local-dir:.", "hf://a/b/c",
    "hf:a/b", "hf:.", "wds:", "wds:.", "wds:http://[::1/x", "wds:http://127.0.0.1:9/x", "wds:pipe:touch executed", "wds:file:///dev/zero",
    "folder:.", "folder:/dev", "clip_benchmark:", "clip_benchmark:x", "builtin:x", "builtin:digits", "digits", "vtab+", "openai",
    "/dev/zero", "/dev/null", "/proc/self/mem", "=1+1", "-1", "0x" + "f" * 5000, "1e400", "nan", "inf", "1:" * 400 + "1", "null", "yes",
    "!!python/object/apply:os.system ['touch executed']", "&a [*a]", "a: &a [*a, *a]", "é", "日本", "🙂", "`touch executed`", "$(touch executed)",
)  # fmt: skip


def text(rng: Random, most: int = 60) -> str:
    """Words of the list above, letters, or any code points."""
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(WORDS)
    if kind < 0.7:
        return rng.choice(WORDS) + rng.choice(WORDS)
    alphabet = "ab01{}[]:,./\\*~@%\"' -\t" if kind < 0.85 else None
    size = rng.randrange(most)
    return "".join(rng.choice(alphabet) if alphabet else chr(rng.randrange(0xD7FF)) for _ in range(size))


def value(rng: Random, depth: int = 0) -> Any:
    """A JSON value, sometimes one nested deeply."""
    kind = rng.randrange(12 if depth < 4 else 8)
    if kind == 8 and rng.random() < 0.05:
        nested: Any = "x"
        for _ in range(rng.choice([27, 90, 150])):
            nested = [nested]
        return nested
    if kind >= 10:
        return {text(rng, 8): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind >= 8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    simple = [
        None,
        True,
        False,
        rng.randrange(-3, 300),
        10 ** rng.randrange(400),
        rng.uniform(-2, 2),
        float("nan"),
        float("inf"),
    ]
    return text(rng) if kind < 4 else rng.choice(simple)


def flipped(rng: Random, data: bytes, most: int = 8) -> bytes:
    """Bytes with some bits flipped, a piece cut, doubled, zeroed or moved."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, most)):
        if not data:
            break
        start = rng.randrange(len(data))
        stop = min(len(data), start + rng.choice([1, 1, 1, 2, 4, 16, 512, 4096]))
        what = rng.randrange(6)
        if what < 3:
            data[start] ^= 1 << rng.randrange(8)
        elif what == 3:
            data[start:stop] = bytes(stop - start)
        elif what == 4:
            data[start:stop] = data[start:stop] * 2
        else:
            del data[start:stop]
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.15 else data)


def changed(rng: Random, document: Any) -> Any:
    """A JSON document with some of its values exchanged, removed or doubled."""
    if isinstance(document, dict):
        kept = {key: changed(rng, item) for key, item in document.items() if rng.random() > 0.03}
        if rng.random() < 0.1:
            kept[text(rng, 8)] = value(rng)
        return kept
    if isinstance(document, list):
        return [changed(rng, item) for item in document for _ in range(rng.choice([1] * 30 + [0, 2]))]
    return value(rng) if rng.random() < 0.06 else document


def yaml_file(rng: Random, sound: str) -> bytes:
    """A configuration: values at odd places, odd text, or a sound file with bytes changed."""
    import yaml

    kind = rng.random()
    if kind < 0.4:
        return flipped(rng, sound.encode())
    if kind < 0.9:
        document = changed(rng, yaml.safe_load(sound))
        return yaml.safe_dump(document, allow_unicode=True, sort_keys=False).encode("utf-8", "replace")
    return text(rng, 400).encode("utf-8", "replace")


def table_file(rng: Random, sound: Any) -> tuple[str, bytes]:
    """A results table: suffix and bytes."""
    kind = rng.random()
    rows = changed(rng, json.loads(sound.to_json(orient="records")))
    rows = [row for row in rows if isinstance(row, dict)]
    if kind < 0.15:
        buffer = io.BytesIO()
        sound.to_parquet(buffer)
        return ".parquet", flipped(rng, buffer.getvalue())
    if kind < 0.4:
        return ".csv", flipped(rng, sound.to_csv(index=False).encode())
    if kind < 0.5:
        return ".csv", text(rng, 300).encode("utf-8", "replace")
    if kind < 0.55:
        return ".json", json.dumps(rows).encode()
    import csv

    out = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["model"]
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows(rows)
    return ".csv", out.getvalue().encode("utf-8", "replace")


def ledger_file(rng: Random, sound: bytes) -> bytes:
    """The lines of a ledger."""
    if rng.random() < 0.4:
        return flipped(rng, sound, 4)
    lines = []
    for line in sound.splitlines():
        entry = changed(rng, json.loads(line))
        if rng.random() < 0.8 and isinstance(entry, dict):  # a line whose checksum is right, whatever it says
            entry.pop("crc", None)
        lines.append(json.dumps(entry))
    if rng.random() < 0.3:
        lines.append(json.dumps(value(rng)))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def image_file(rng: Random, sound: list[bytes]) -> bytes:
    """An image, sound or damaged, or another format under its name."""
    kind = rng.random()
    if kind < 0.05:
        return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(touch {MARKER}) run\n".encode()
    if kind < 0.1:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
    if kind < 0.15:
        return png_header(rng.choice([1, 50, 89_478_450, 2**31 - 1]), rng.choice([1, 1_789_550, 89_478_450, 2**31 - 1]))
    return flipped(rng, rng.choice(sound))


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds almost nothing."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def tar_file(rng: Random, images: list[bytes]) -> bytes:
    """A shard: odd members, or a sound one with bytes changed."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    ) as tar:
        for number in range(rng.randrange(5)):
            key = f"s{number}" if rng.random() < 0.8 else text(rng, 20)
            _add(tar, rng, f"{key}.{rng.choice(['jpg', 'png', 'JPG', 'webp'])}", rng.choice(images))
            _add(
                tar,
                rng,
                f"{key}.cls",
                rng.choice([b"0", b"1", b"0", b"1", b"9" * 4000, str(2**63).encode(), b"-1", b"x", b""]),
            )
            if rng.random() < 0.3:
                _add(tar, rng, f"{key}.txt", text(rng).encode("utf-8", "replace"))
            if rng.random() < 0.2:
                _add(tar, rng, f"{key}.npy", npy_file(rng))
            if rng.random() < 0.05 and tar.format != tarfile.USTAR_FORMAT:  # whose writer takes minutes for it
                _add(tar, rng, "a/" * rng.choice([10, 3000, 150_000]) + "x.jpg", b"")
    return flipped(rng, buffer.getvalue()) if rng.random() < 0.5 else buffer.getvalue()


def _add(tar: tarfile.TarFile, rng: Random, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name.replace("\x00", "0").encode("utf-8", "replace").decode())
    info.size = len(data)
    if rng.random() < 0.03:
        info.type = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
        info.linkname = "/etc/passwd"
    try:
        tar.addfile(info, io.BytesIO(data))
    except (ValueError, UnicodeError):
        return


def npy_file(rng: Random) -> bytes:
    """Labels as NumPy keeps them, or what looks like it."""
    buffer = io.BytesIO()
    kind = rng.randrange(6)
    if kind == 0:
        np.savez(buffer, a=np.zeros(2))
    elif kind == 1:
        np.save(buffer, np.array([1 + 2j, np.nan]))
    elif kind == 2:
        return (
            b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000,), }"
            + b" " * 40
            + b"\n"
        )
    elif kind == 3:
        return b""
    else:
        np.save(buffer, np.array([0, 1, rng.randrange(-2, 7)]))
    return flipped(rng, buffer.getvalue()) if rng.random() < 0.3 else buffer.getvalue()


class Payload:
    """A pickle that writes the marker where it is executed."""

    def __init__(self, how: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._call = how, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def checkpoint_file(rng: Random, sound: bytes, content: dict[str, Any]) -> bytes:
    """A ``.pt`` file: other values in its configuration and facts, a payload, or bytes changed."""
    import torch

    kind = rng.random()
    if kind < 0.35:
        return flipped(rng, sound, 5)
    document = {key: item if key == "state_dict" else _odd(rng, item) for key, item in content.items()}
    if kind < 0.5:
        how = rng.choice([(os.system, (f"touch {MARKER}",)), (exec, (PROGRAM,)), (eval, (PROGRAM,))])
        document[rng.choice(["metadata", "extra", "model_cfg", "state_dict"])] = Payload(*how)
    if kind > 0.95:
        document["state_dict"] = value(rng)
    elif kind > 0.9:
        document["state_dict"] = {
            text(rng, 9) if rng.random() < 0.1 else key: tensor * float("nan") if rng.random() < 0.1 else tensor
            for key, tensor in document["state_dict"].items()
        }
    buffer = io.BytesIO()
    torch.save(document, buffer, _use_new_zipfile_serialization=rng.random() < 0.8)
    return buffer.getvalue()


def _odd(rng: Random, item: Any) -> Any:
    """Configurations with the numbers that hurt: none, huge, negative, of another type."""
    if isinstance(item, dict):
        found = {key: _odd(rng, inner) for key, inner in item.items() if rng.random() > 0.02}
        if rng.random() < 0.1:
            found[rng.choice(_KEYS)] = rng.choice([value(rng), True, "evil", {"trust_remote_code": True}])
        return found
    if rng.random() < 0.002:
        return _lists_in_lists()
    numbers = [0, -1, 1, 10**6, 10**8, 2**63, 10**400, 0.5, None, "many", [1], {}, True, float("nan")]
    return rng.choice(numbers) if rng.random() < 0.07 else item


def _lists_in_lists() -> Any:
    """Twenty-seven lists that each hold the one before twice: small in a pickle, 2^27 words when written out."""
    nested: Any = "x"
    for _ in range(27):
        nested = [nested, nested]
    return nested


_KEYS = (
    "multimodal_cfg", "hf_tokenizer_name", "tokenizer_kwargs", "hf_model_name", "timm_model_name", "custom_text", "quick_gelu",
    "layers", "width", "heads", "image_size", "patch_size", "context_length", "vocab_size", "samples_seen", "gpu_hours", "source",
    "preprocess_cfg", "mean", "std", "interpolation", "resize_mode", "init_logit_scale", "embed_cls", "pool_type", "output_dim",
)  # fmt: skip


@cache
def sound_images() -> list[bytes]:
    """Small pictures in every format that is read."""
    from PIL import Image

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (23, 31, 3), dtype=np.uint8))
    found = []
    for kind, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("PPM", {}),
    ):
        for mode in ("RGB", "L"):
            buffer = io.BytesIO()
            picture.convert(mode).save(buffer, kind, **options)
            found.append(buffer.getvalue())
    return found


def write(path: Path, data: bytes) -> Path:
    """Fill a file, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
