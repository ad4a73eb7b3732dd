"""The sections of ``bench.gpu``: ``python -m bench.gpu_sections NAME [ARCH] -- FOLDER DEVICE SIZE`` measures one and
prints its rows and what is broken."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench import gpu_peer, probe
from bench.data import jpeg, tiny_checkpoint, write_split
from bench.input import SHARDS, write_shards
from bench.train import MODEL

CLASSES = 100
DISTINCT = 1_000
"""JPEGs drawn; each is used several times, which costs a decoder the same as a new one."""
IMAGES, COMPARED = {"ViT-B-32": 10_000, "ViT-L-14": 3_000}, {"ViT-B-32": 1_000, "ViT-L-14": 64}
"""Images embedded, and of those how many the CPU embeds too."""
CLOSE = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 2e-2, "bf16": 0.1, "bf16-weights": 0.1}
"""How far an embedding may be from the CPU's in fp32, relative to its length."""
SAME_TOP1, SAME_PROBE = 0.999, 0.995
"""Shares of predictions that are to be the CPU's: of fp32 embeddings, and of fits, which end where they are near enough."""


@dataclass
class Section:
    """Where a section works, and what it has found."""

    root: Path
    device: str
    small: bool
    rows: list[dict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def row(self, **first: object) -> Iterator[dict]:
        """A row to be filled in. What fails is told in it and of it, and the next is measured all the same."""
        row: dict = dict(first)
        self.rows.append(row)
        try:
            yield row
        except Exception as error:
            row["broken"] = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
            self.problems.append(f"{' '.join(map(str, first.values()))}: {row['broken']}")

    def require(self, holds: bool, what: str) -> None:
        """``what`` is broken unless it ``holds``."""
        if not holds:
            self.problems.append(what)

    @property
    def on_gpu(self) -> bool:
        """Whether it is about a GPU."""
        return self.device == "cuda"

    @property
    def workers(self) -> int:
        """Decoding processes."""
        return 2 if self.small else min(os.cpu_count() or 1, 16)

    def wait(self) -> None:
        """Until the device has done all that it was asked for."""
        import torch

        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], object]) -> float:
        """Of an action, to the end of what it asked of the device."""
        self.wait()
        started = time.perf_counter()
        action()
        self.wait()
        return time.perf_counter() - started

    # --- what is measured ---

    def spec(self, arch: str):
        """A checkpoint with random weights: of ``arch``, or a toy."""
        from clipeval import config, models

        if self.small:
            word = str(self.root / "tiny.pt")
            if not Path(word).exists():
                tiny_checkpoint(Path(word))
        else:
            path = self.root / f"{arch}.pt"
            if not path.exists():
                import open_clip
                import torch

                torch.manual_seed(0)
                torch.save({"state_dict": open_clip.create_model(arch).state_dict()}, path)
            word = f"{arch},{path}"
        [spec] = models.resolve([word], config.packaged())
        return spec

    def load(self, spec, precision: str, device: str | None = None):
        """The checkpoint on the device."""
        from clipeval import models

        return models.load(spec, device=device or self.device, precision=precision, offline=True)

    def dataset(self):
        """JPEGs in shards, of 100 classes."""
        from clipeval import config, datasets

        folder = self.root / "wds_classes"
        if not folder.exists():
            count, distinct = (40, 20) if self.small else (max(IMAGES.values()), DISTINCT)
            rng = np.random.default_rng(0)
            files = [jpeg(rng) for _ in range(distinct)]
            samples = [{"jpg": files[i % distinct], "cls": str(i % CLASSES).encode()} for i in range(count)]
            write_split(folder / "test", samples, 2 if self.small else 16)
            (folder / "classnames.txt").write_text("\n".join(f"class {c}" for c in range(CLASSES)))
            (folder / "zeroshot_classification_templates.txt").write_text("a photo of {c}.")
        [(name, entry)] = datasets.resolve([f"wds:{folder}"], config.packaged()).datasets.items()
        return datasets.open_dataset(name, entry)


def evaluator(section: Section, arch: str) -> None:
    """Images per second in every precision, from JPEGs and from cached pixels, and how near embeddings are to the CPU's."""
    from clipeval import precision

    spec, dataset = section.spec(arch), section.dataset()
    images = len(dataset) if section.small else IMAGES[arch]
    compared = min(images, 20 if section.small else COMPARED[arch])
    expected = _reference(section, spec, dataset, compared)
    theirs = gpu_peer.rates(section.root, arch, section.device, section.workers, section.small, images)
    for name in precision.PRECISIONS:
        if refusal := precision.refusal(name, section.device):
            section.rows.append({"precision": name, "batch": refusal})
            continue
        with section.row(precision=name) as row:
            vectors, classes = _speeds(section, section.load(spec, name), dataset, images, row)
            _peer_column(row, theirs, name)
            _nearness(section, f"{arch} {name}", name, [vectors[:compared], classes], expected, row)
    exact = {row["precision"]: row.get("difference") for row in section.rows}
    if exact.get("tf32") is not None and exact.get("fp32") is not None:
        section.require(exact["fp32"] < exact["tf32"] / 10, f"{arch}: fp32 is no nearer to the CPU than tf32")


def _reference(section: Section, spec, dataset, count: int) -> list[np.ndarray]:
    import torch

    encoder = section.load(spec, "fp32", "cpu")
    pixels = torch.from_numpy(np.stack([encoder.pixels(dataset.image(i)) for i in range(count)]))
    return [encoder.encode_images(pixels).numpy(), _classes(encoder, dataset)]


def _classes(encoder, dataset) -> np.ndarray:
    prompts = [texts[0] for texts in dataset.prompts.texts()]
    return encoder.tokenized(prompts).encode(np.arange(len(prompts))).cpu().numpy()


def _speeds(section: Section, encoder, dataset, images: int, row: dict) -> list[np.ndarray]:
    """Fill in what was measured; the embeddings of images and of class names."""
    import torch

    from clipeval.embeddings import batches, pixels
    from clipeval.embeddings import images as embedding
    from clipeval.embeddings.pixels import LoaderSettings

    cache = section.root / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    os.environ["CLIPEVAL_CACHE"] = str(cache)
    row["batch"] = batch = batches.images_at_once(encoder)
    settings, indices, found = LoaderSettings(batch, section.workers), np.arange(images), []

    def embed() -> None:
        found[:] = [embedding.embed(encoder, dataset, indices, settings, lambda *_: None)]

    def read() -> None:
        with pixels.loaded(dataset, encoder, indices, settings) as loaded:
            for _ in loaded:
                pass

    blank = torch.zeros(min(batch, images), *encoder.record_shape, dtype=torch.uint8, device=section.device)
    encoder.encode_images(blank)
    rounds = 2 if section.small else 10
    tower = rounds * len(blank) / section.seconds(lambda: [encoder.encode_images(blank) for _ in range(rounds)])
    row["from JPEGs, images/s"] = from_files = images / section.seconds(embed)
    row["pixels read, images/s"] = images / section.seconds(read)
    shutil.rmtree(embedding.embedding_file(encoder, dataset).path.parent)
    row["from cached pixels, images/s"] = cached = images / section.seconds(embed)
    row["tower alone, images/s"] = tower
    row["waits, JPEGs"], row["waits, cached"] = (f"{max(0.0, 1 - rate / tower):.0%}" for rate in (from_files, cached))
    return [*found, _classes(encoder, dataset)]


def _peer_column(row: dict, theirs: dict | str, name: str) -> None:
    rate = theirs if isinstance(theirs, str) else theirs.get(name)
    row["CLIP_benchmark, images/s"] = rate
    if isinstance(rate, float):
        row["ratio"] = row["from JPEGs, images/s"] / rate


def _nearness(section: Section, what: str, name: str, found: list, expected: list, row: dict) -> None:
    row["difference"] = difference = max(map(relative, found, expected))
    same = float((_top1(*found) == _top1(*expected)).mean())
    row["same top-1"] = f"{same:.2%}"
    section.require(difference <= CLOSE[name], f"{what}: embeddings differ by {difference:.2g}, not {CLOSE[name]:g}")
    if name == "fp32":
        section.require(same >= SAME_TOP1, f"{what}: top-1 is the CPU's for {same:.2%}, not {SAME_TOP1:.1%}")


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest distance between rows relative to the length of the expected one; infinite where one is not finite."""
    distance = np.linalg.norm(found.astype(np.float64) - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(distance.max()) if np.isfinite(distance).all() else math.inf


def _top1(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return (images @ (classes / np.linalg.norm(classes, axis=1, keepdims=True)).T).argmax(1)


def memory(section: Section) -> None:
    """Embeddings where the device has too little memory for the batch."""
    if not section.on_gpu:
        section.rows.append({"batch": "needs a CUDA GPU"})
        return
    import torch

    from clipeval.embeddings import batches
    from clipeval.embeddings.batches import Batch

    with section.row(batch=4096) as row:
        encoder = section.load(section.spec("ViT-B-32"), "fp32")
        rng = np.random.default_rng(0)
        pixels = torch.from_numpy(rng.integers(0, 256, (4096, *encoder.record_shape), np.uint8))
        [(_, expected)] = batches.encoded(encoder, "images", [(0, Batch(pixels[:16]))], encoder.encode_images)
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved() + (1 << 30)
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
        [(_, found)] = batches.encoded(encoder, "images", [(0, Batch(pixels))], encoder.encode_images)
        row["fits after halving"] = fits = batches._fits[encoder]["images"].most
        row["difference"] = relative(found[:16], expected)
        section.require(fits is not None, "4,096 images fit into 1 GiB: nothing was tried")
        section.require(row["difference"] <= CLOSE["fp32"], "halved batches give other embeddings")


def compile_(section: Section) -> None:
    """Towers as torch compiles them: how long that takes, and what it gains."""
    import torch

    for arch in ("ViT-B-32",):
        for name in ("fp32", "bf16"):
            with section.row(model=arch, precision=name) as row:
                spec = section.spec(arch)
                plain, fast = section.load(spec, name), section.load(replace(spec, compiled=True), name)
                rng = np.random.default_rng(0)
                size = 8 if section.small else 256
                pixels = torch.from_numpy(rng.integers(0, 256, (size, *plain.record_shape), np.uint8)).to(
                    section.device
                )
                row["compiled in, s"] = section.seconds(lambda e=fast, p=pixels: e.encode_images(p))
                plain.encode_images(pixels)
                rates = [
                    10 * size / section.seconds(lambda e=encoder, p=pixels: [e.encode_images(p) for _ in range(10)])
                    for encoder in (plain, fast)
                ]
                row["plain, images/s"], row["compiled, images/s"] = rates
                row["ratio"] = rates[1] / rates[0]
                before = _graphs()
                for count in (size - 1, size // 2, 3):
                    fast.encode_images(pixels[:count])
                row["compiled again for other sizes"] = _graphs() - before
                ours, theirs = (encoder.encode_images(pixels).cpu().numpy() for encoder in (fast, plain))
                row["difference"] = relative(ours, theirs)
                section.require(row["difference"] <= CLOSE[name], f"{arch} {name}: compiled embeddings differ")


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def linear_probe(section: Section) -> None:
    """Both fits, by arrays of the device and by NumPy's."""
    import torch

    from clipeval.tasks.accuracy import Labelled
    from clipeval.tasks.linear_probe import train_classifier
    from clipeval.tasks.softmax import SoftmaxRegression

    def fitted(what: str, train: Labelled):
        if what == "scikit-learn's":
            return train_classifier(train)
        return SoftmaxRegression([train], threads=os.cpu_count() or 1).fit(1.0)

    sizes = ((300, 16, 5), (400, 16, 6)) if section.small else ((4_000, 256, 20), (100_000, 512, 200))
    for what, size in zip(("scikit-learn's", "clipeval's"), sizes, strict=True):
        with section.row(fit=what, rows="{:,} x {} x {}".format(*size)) as row:
            train, test = probe.rows(*size, 0.3)
            there = Labelled(torch.from_numpy(train.embeddings.copy()).to(section.device), train.labels, train.ids)
            models: list = []
            row["CPU, s"] = section.seconds(lambda w=what, t=train, m=models: m.append(fitted(w, t)))
            row[f"{section.device}, s"] = section.seconds(lambda w=what, t=there, m=models: m.append(fitted(w, t)))
            scores = [test.embeddings @ _numpy(model.weights).T + _numpy(model.bias) for model in models]
            same = float((scores[0].argmax(1) == scores[1].argmax(1)).mean())
            row["same predictions"] = f"{same:.2%}"
            section.require(same >= SAME_PROBE, f"{what} fit: predictions are the CPU's for {same:.2%}")


def _numpy(array) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def trainer(section: Section) -> None:
    """Steps per second from JPEG shards, and how often the host waits for the device in a step."""
    batch, steps = (8, 8) if section.small else (256, 64)
    model = {**MODEL, "vision_cfg": MODEL["vision_cfg"] | {"image_size": 64}} if section.small else "ViT-B-32"
    shards = section.root / "pairs"
    shards.mkdir()
    write_shards(shards, 72 if section.small else 256, 4 * batch if section.small else 8 * batch)
    base = {
        "model": model,
        "arch": "small",
        "batch_size": batch,
        "lr": 1e-4,
        "warmup": batch,
        "workers": section.workers,
    }
    base |= {"data": [{"source": "bench", "shards": f"{shards}/{{0..{SHARDS - 1}}}.tar"}]}
    os.environ["CLIPEVAL_CACHE"] = str(section.root / "cache")
    for precision in ("fp32", "bf16"):
        with section.row(model="toy" if section.small else model, precision=precision, batch=batch) as row:
            out = section.root / f"train-{precision}"
            settings = base | {"precision": precision}
            _train(settings | {"samples": batch * steps, "out": str(out)})
            lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            lines = [line for line in lines if "samples_per_second" in line]
            first = next(line for line in lines if line["samples"] >= batch * steps // 4)
            gained = lines[-1]["samples"] - first["samples"]
            row["steps/s"] = gained / batch / (lines[-1]["seconds"] - first["seconds"])
            row["synchronisations per step"] = _waits(section, settings, batch)


def _waits(section: Section, settings: dict, batch: int) -> float | str:
    """Of a step, by runs of two lengths: beginning and end do not count."""
    if not section.on_gpu:
        return "needs a CUDA GPU"
    import torch

    counts = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        for steps in (4, 12):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                out = section.root / f"waits-{settings['precision']}-{steps}"
                _train(settings | {"samples": batch * steps, "out": str(out)})
            counts.append(sum("synchroniz" in str(warning.message) for warning in caught))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return (counts[1] - counts[0]) / 8


def _train(settings: dict) -> None:
    from clipeval_train.config import PretrainConfig
    from clipeval_train.loop import pretrain

    pretrain(PretrainConfig.model_validate(settings))


NAMES = {"evaluator": evaluator, "memory": memory, "compile": compile_, "probe": linear_probe, "trainer": trainer}


def main() -> None:
    """Measure the section that the command line names."""
    from bench.gpu import ANSWER

    place = sys.argv.index("--")
    (name, *given), (folder, device, size) = sys.argv[1:place], sys.argv[place + 1 :]
    section = Section(Path(folder), device, size == "small")
    NAMES[name](section, *given)
    print(f"\n{ANSWER}{json.dumps({'rows': section.rows, 'problems': section.problems})}")


if __name__ == "__main__":
    main()
