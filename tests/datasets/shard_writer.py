"""Writes webdatasets in CLIP_benchmark's layout for the tests, independently of the code under test."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["red fox", "snow leopard", "tabby cat", "grey wolf", "brown bear"]
TEMPLATES = ["a photo of a {c}.", "a drawing of a {c}."]


def picture(seed: int, width: int = 37, height: int = 23, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {}
    image.save(buffer, {"jpg": "jpeg"}.get(kind, kind), **options)
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_split(root: Path, split: str, shards: Sequence[Sequence[tuple[str, bytes]]]) -> None:
    for index, members in enumerate(shards):
        write_tar(root / split / f"{index}.tar", members)
    (root / split / "nshards.txt").write_text(f"{len(shards)}\n")


def classification(root: Path, split: str = "test", per_shard: Sequence[int] = (4, 3), kind: str = "png") -> list[int]:
    """Random labels, image modes that need conversion, class names and templates; returns the labels in order."""
    modes = ["RGB", "L", "P", "RGBA"] if kind == "png" else ["RGB"]
    labels: list[int] = []
    shards = []
    for count in per_shard:
        members = []
        for _ in range(count):
            index = len(labels)
            labels.append((3 * index + 1) % len(CLASSES))
            data = encoded(picture(index, 37 + index, 23, modes[index % len(modes)]), kind)
            members += [(f"s{index:07d}.{kind}", data), (f"s{index:07d}.cls", str(labels[-1]).encode())]
        shards.append(members)
    write_split(root, split, shards)
    (root / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    return labels


def retrieval(root: Path, captions: Sequence[Sequence[str]], split: str = "test", kind: str = "webp") -> None:
    members = []
    for index, texts in enumerate(captions):
        members += [
            (f"s{index:07d}.{kind}", encoded(picture(index), kind)),
            (f"s{index:07d}.txt", "\n".join(texts).encode()),
        ]
    write_split(root, split, [members])
    (root / "dataset_type.txt").write_text("retrieval\n")
