"""Small real checkpoints and data sets that tests make for themselves."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


def tiny_checkpoint(path: Path, seed: int = 0, cfg: dict | None = None, **metadata: object) -> Path:
    """A randomly initialised CLIP, saved in clipeval-train's format."""
    import open_clip

    cfg = cfg or TINY
    torch.manual_seed(seed)
    model = open_clip.CLIP(**json.loads(json.dumps(cfg)))
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"source": "toy-a", "samples_seen": 1234, "unique_samples": 1000.0, "seed": seed, **metadata}
    torch.save(
        {
            "format": "clipeval-train-1",
            "state_dict": model.state_dict(),
            "model_cfg": cfg,
            "arch": "tiny",
            "metadata": facts,
        },
        path,
    )
    return path


def trained_checkpoint(path: Path, folder: Path, steps: int = 60) -> Path:
    """A checkpoint of the same architecture and size that has learnt the colours of ``folder`` (``image_folder``)."""
    from clipeval import config, datasets, models

    tiny_checkpoint(path, 3)
    selection = datasets.resolve([f"folder:{folder}"], config.packaged())
    [(name, entry)] = selection.datasets.items()
    dataset = datasets.open_dataset(name, entry)
    [spec] = models.resolve([str(path)], config.packaged())
    encoder = models.load(spec, device="cpu", precision="fp32", offline=True)
    pixels = np.stack([encoder.pixels(dataset.image(index)) for index in range(len(dataset))])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (encoder.preprocessing.mean, encoder.preprocessing.std)
    )
    images, labels = (images - mean) / std, torch.from_numpy(dataset.labels)
    tokens = encoder.tokenize([prompts[0] for prompts in dataset.prompts.texts()])
    model = encoder.model.train().requires_grad_(True)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        logits = model.encode_image(images, normalize=True) @ model.encode_text(tokens, normalize=True).T
        torch.nn.functional.cross_entropy(20 * logits, labels).backward()
        optimiser.step()
        optimiser.zero_grad()
    content = torch.load(path, weights_only=True)
    for name, value in model.state_dict().items():
        content["state_dict"][name].copy_(value)
    torch.save(content, path)
    return path


def picture(seed: int, label: int = 0, size: tuple[int, int] = (41, 37)) -> Image.Image:
    """A picture whose colours depend on ``label``, with noise from ``seed``."""
    rng = np.random.default_rng(seed)
    base = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 255], [220, 220, 0], [200, 0, 200], [0, 200, 200]])[label % 6]
    noise = rng.integers(-60, 60, (size[1], size[0], 3))
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


def image_folder(root: Path, classes: int = 6, per_class: dict[str, int] | None = None) -> Path:
    """``root/{train,test}/CLASS/*.png`` with an odd number of images in all."""
    names = ["red", "green", "blue", "yellow", "magenta", "cyan"][:classes]
    for split, count in (per_class or {"train": 9, "test": 5}).items():
        for label, name in enumerate(names):
            for number in range(count + (label == 1)):
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                picture(10_000 * label + 100 * len(split) + number, label).save(folder / f"{number:03d}.png")
    return root


def caption_shards(root: Path, images: int = 23, captions: int = 3, shards: int = 2) -> Path:
    """A retrieval set in CLIP_benchmark's webdataset layout: image i has ``captions`` captions."""
    folder = root / "test"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "dataset_type.txt").write_text("retrieval")
    (folder / "nshards.txt").write_text(str(shards))
    colours = ["red", "green", "blue", "yellow", "magenta", "cyan"]
    for shard in range(shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i in range(shard * images // shards, (shard + 1) * images // shards):
                text = "\n".join(f"a {colours[i % 6]} square, view {k} of item {i}" for k in range(captions))
                add(tar, f"s{i:07d}.txt", text.encode())
                add(tar, f"s{i:07d}.png", encoded(picture(i, i)))
    return root


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One member with the given bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
