"""What one image, one cell and one index entry cost here: the inputs of the arithmetic in docs/scale.md."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.measure import machine

WIDTH = 512


def main() -> None:
    """Measure decoding, the stores, scoring, and FAISS indexes on clustered vectors."""
    print(machine(), "- one core each")
    _decoding()
    _stores()
    _scoring()
    _indexes()


def _rate(work: Callable[[], object], items: int) -> float:
    work()
    started = time.perf_counter()
    work()
    return items / (time.perf_counter() - started)


def _decoding() -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (32, 42, 3), np.uint8))
    file = io.BytesIO()
    small.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)

    def decode() -> None:
        for _ in range(50):
            image = Image.open(file).convert("RGB")
            image.resize((299, 224), Image.Resampling.BICUBIC).crop((37, 0, 261, 224)).tobytes()

    print(f"decode, resize and crop a 500 x 375 JPEG to 224: {_rate(decode, 50):8,.0f} images/s")


def _stores() -> None:
    from clipeval.embeddings.records import RecordFile

    with tempfile.TemporaryDirectory() as folder:
        for name, row_bytes, n in (("pixels", 224 * 224 * 3, 1_000), ("embeddings", 4 * WIDTH, 50_000)):
            file = RecordFile(Path(folder) / name, n, row_bytes)
            rows = np.random.default_rng(0).integers(0, 255, (n, row_bytes), np.uint8)
            indices = np.arange(n)
            written = _rate(lambda file=file, rows=rows, indices=indices: file.write(indices, rows), n)
            read = _rate(lambda file=file, indices=indices: file.read(indices), n)
            print(f"{name} of {row_bytes:,} bytes: write {written:10,.0f}/s, read {read:10,.0f}/s (page cache)")


def _scoring() -> None:
    from clipeval.tasks import zeroshot_classification

    rng = np.random.default_rng(0)
    images = rng.standard_normal((50_000, WIDTH), np.float32)
    classes = rng.standard_normal((1_000, WIDTH), np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    labels = np.arange(50_000) % 1_000
    ids = [str(i) for i in range(50_000)]
    started = time.perf_counter()
    zeroshot_classification.evaluate(images, classes, labels, ids)
    print(
        f"score 50,000 images against 1,000 classes, with intervals and outcomes: {time.perf_counter() - started:.1f} s"
    )


def _indexes() -> None:
    """Recall of the true nearest neighbour, and queries per second, of indexes over 100,000 clustered vectors.

    Queries are new vectors of the same distribution, as captions are that were written for no image of the index: many
    images lie nearly as close as the closest.
    """
    import faiss

    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    n, queries = 100_000, 500
    centres = rng.standard_normal((2_000, 64), np.float32)
    projection = rng.standard_normal((64, WIDTH), np.float32) / 8
    of = rng.integers(0, len(centres), n + queries)
    vectors = (centres[of] + 0.7 * rng.standard_normal((n + queries, 64), np.float32)) @ projection
    vectors += 0.1 * rng.standard_normal(vectors.shape, np.float32)
    base, asked = vectors[:n], vectors[n:]
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    exact = faiss.IndexFlatIP(WIDTH)
    exact.add(base)
    truth = exact.search(asked, 1)[1]
    print(f"exact: {_rate(lambda: exact.search(asked, 10), queries):8.1f} queries/s over {n:,}, {4 * WIDTH} bytes each")
    for factory, code in (("IVF512,PQ32", 32), ("IVF512,PQ64", 64), ("IVF512,SQ8", WIDTH)):
        index = faiss.index_factory(WIDTH, factory, faiss.METRIC_INNER_PRODUCT)
        started = time.perf_counter()
        index.train(base[:25_000])
        trained = time.perf_counter() - started
        started = time.perf_counter()
        index.add(base)
        added = n / (time.perf_counter() - started)
        for probes in (8, 64):
            faiss.extract_index_ivf(index).nprobe = probes
            found = index.search(asked, 100)[1]
            recall = [(found[:, :k] == truth).any(axis=1).mean() for k in (1, 10, 100)]
            rate = _rate(lambda index=index: index.search(asked, 100), queries)
            print(
                f"{factory:24} {code + 8:4} bytes, nprobe {probes:3}: nearest found in the first 1, 10, 100: "
                f"{', '.join(f'{value:.3f}' for value in recall)}; {rate:7.1f} queries/s; trained in {trained:.0f} s, "
                f"added {added:,.0f}/s"
            )
