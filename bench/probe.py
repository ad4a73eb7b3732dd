"""The linear probe: choosing C and fitting against one fit, against scikit-learn, and the memory of both."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np

from bench.measure import machine, timed

PROBES = ((20_000, 512, 100, 0.2), (50_000, 256, 20, 0.2), (100_000, 128, 100, 0.25))
"""Rows, width, classes, and how far the classes are apart."""
MEMORY = ((40_000, 256, 200), (80_000, 256, 200), (80_000, 512, 200), (80_000, 256, 400))
IMAGENET = (1_281_167, 768, 1000)
REFERENCE_ITERATIONS = 20


def main() -> None:
    """Print ratios; CPU seconds are those of one thread."""
    print(machine())
    for n, width, classes, apart in PROBES:
        print(_child("ratio", n, width, classes, apart))
    print("\nmemory above libraries and embeddings, MiB: clipeval (its own estimate), scikit-learn")
    from clipeval.tasks.linear_probe import working_bytes

    for n, width, classes in MEMORY:
        embeddings = n * width * 4 / 2**20
        ours, theirs = (float(_child(f"memory-{who}", n, width, classes, 0.2)) for who in ("clipeval", "sklearn"))
        said = working_bytes(n, width, classes, 1) / 2**20 - embeddings
        print(f"  {n:,} x {width} x {classes} ({embeddings:,.0f}): {ours:,.0f} ({said:,.0f}), {theirs:,.0f}")
    n, width, classes = IMAGENET
    gigabytes = [working_bytes(n, width, classes, threads) / 1e9 for threads in (1, 16)]
    print(
        f"{n:,} x {width} x {classes}: {gigabytes[0]:.1f} GB with the embeddings, on 16 threads {gigabytes[1]:.1f} GB"
    )


def _child(what: str, *numbers: float) -> str:
    command = [sys.executable, "-m", "bench.probe", what, *map(str, numbers)]
    return timed(command, OMP_NUM_THREADS="1").output.strip()


def rows(n: int, width: int, classes: int, apart: float):
    """Unit vectors with a common mean and a falling spectrum, as embeddings have: rows to train on and to score."""
    from clipeval.tasks.accuracy import Labelled

    rng = np.random.default_rng(0)
    spectrum = np.arange(1, width + 1, dtype=np.float32) ** -0.5
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)
    centres = rng.standard_normal((classes, width), np.float32) * apart
    mean = rng.standard_normal(width, np.float32) * 0.6
    for size in (n, 10_000):
        labels = rng.integers(0, classes, size)
        x = rng.standard_normal((size, width), np.float32)
        x += centres[labels]
        x *= spectrum
        x = x @ axes
        x += mean
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        yield Labelled(x, labels, [""] * size)


def ratio(n: int, width: int, classes: int, apart: float) -> None:
    """CPU seconds of a probe, of one fit at its C, and of scikit-learn's iterations."""
    from sklearn.linear_model import LogisticRegression

    from clipeval.tasks.linear_probe import train_classifier
    from clipeval.tasks.softmax import SoftmaxRegression

    train, test = rows(n, width, classes, apart)
    clock = [time.process_time()]
    classifier = train_classifier(train)
    clock.append(time.process_time())
    model = SoftmaxRegression([train])
    model.fit(classifier.notes["C"])
    clock.append(time.process_time())
    few = LogisticRegression(C=classifier.notes["C"], tol=model.tolerance, max_iter=REFERENCE_ITERATIONS)
    _quietly(few, train)
    clock.append(time.process_time())
    both, one, theirs = np.diff(clock)
    print(
        f"{n:,} x {width} x {classes}: C {classifier.notes['C']:.3g}, acc1 {classifier.accuracy(test):.4f}; choosing and "
        f"fitting {both:.1f} s, one fit {one:.1f} s in {model.passes} passes: {both / one:.2f} times; a pass "
        f"{one / model.passes * 1e3:.0f} ms, an iteration of scikit-learn {theirs / few.n_iter_[0] * 1e3:.0f} ms"
    )


def memory(n: int, width: int, classes: int, apart: float, who: str) -> None:
    """Peak MiB above what stood before the fit: a few iterations show it."""
    from sklearn.linear_model import LogisticRegression

    from clipeval.tasks import linear_probe, softmax

    train, _ = rows(n, width, classes, apart)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far was that of making the rows
    if who == "sklearn":
        _quietly(LogisticRegression(max_iter=12, tol=1e-12), train)
    else:
        softmax._ITERATIONS = 12
        with linear_probe._one_thread_each():
            linear_probe._trained(train, None, lambda sentence: None)
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 1024 - before)


def _quietly(estimator, train) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(train.embeddings, train.labels)


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    given = (*map(int, numbers[:3]), float(numbers[3]))
    ratio(*given) if what == "ratio" else memory(*given, what.removeprefix("memory-"))
