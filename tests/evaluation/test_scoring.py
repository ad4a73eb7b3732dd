"""One data set is scored while the next is encoded: the same results in the same order, and errors and interrupts that
end what they would have ended."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref

import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval import config
from clipeval.embeddings import images
from clipeval.embeddings.inputs import EmbeddedInputs
from clipeval.evaluation import run as running
from clipeval.evaluation.request import Options, Request
from clipeval.evaluation.workbench import Workbench
from clipeval.tasks import linear_probe, zeroshot_classification

TIMES = ["started_at", "seconds", "images_per_second"]


@pytest.fixture
def zoo(tmp_path):
    for number in range(2):
        tiny_checkpoint(tmp_path / f"{number}.pt", number)
    for name, count in (("one", 5), ("two", 7), ("three", 4)):
        image_folder(tmp_path / name, per_class={"train": 6, "test": count})
    caption_shards(tmp_path / "pairs")
    entries = {name: f"folder:{tmp_path}/{name}" for name in ("one", "two", "three")}
    (tmp_path / "b.yaml").write_text(json.dumps({"datasets": entries | {"pairs": f"wds:{tmp_path}/pairs"}}))
    return tmp_path


@pytest.fixture
def measure(zoo, monkeypatch):
    def call(beside, out="out", names=("one", "two", "pairs", "three"), tasks=("classification", "retrieval", "probe")):
        monkeypatch.setattr(Workbench, "is_free_to_score", beside)
        request = Request(
            config=config.load(zoo / "b.yaml"),
            options=Options(out=zoo / out, workers=0, shots=(None, 2)),
            models=[str(zoo / "0.pt"), str(zoo / "1.pt")],
            datasets=names,
            tasks=tasks,
        )
        return running.execute(request, quiet=True)

    return call


def lines(folder):
    found = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [line.get("cell") for line in found]


def test_the_same_rows_in_the_same_order(zoo, measure, monkeypatch, tmp_path_factory):
    seen = []
    real = linear_probe.run
    monkeypatch.setattr(linear_probe, "run", lambda inputs: (seen.append(threading.current_thread()), real(inputs))[1])
    measure(False, "before")
    assert set(seen) == {threading.main_thread()}
    seen.clear()
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("another")))
    measure(True, "after")
    assert threading.main_thread() not in seen
    before, after = (clipeval.read_results(zoo / name).drop(columns=TIMES) for name in ("before", "after"))
    assert after.equals(before)
    assert set(after.status) <= {"ok", "skipped"}
    assert lines(zoo / "after") == lines(zoo / "before")


def test_the_next_data_set_is_encoded_meanwhile(measure, monkeypatch):
    """Scoring waits until it is, and no more than one is held beside that which is scored."""
    encoded = {name: threading.Event() for name in ("one", "two", "three")}
    embed, score = images.embed, zeroshot_classification.run
    held: list[weakref.ref[EmbeddedInputs]] = []

    def embedding(encoder, dataset, *rest):
        gc.collect()
        assert sum(reference() is not None for reference in held) <= 1
        found = embed(encoder, dataset, *rest)
        encoded[dataset.name].set()
        return found

    def scoring(inputs):
        held.append(weakref.ref(inputs))
        following = {"one": "two", "two": "three"}.get(inputs.dataset.name)
        assert following is None or encoded[following].wait(20)
        return score(inputs)

    monkeypatch.setattr(images, "embed", embedding)
    monkeypatch.setattr(zeroshot_classification, "run", scoring)
    done = measure(True, names=("one", "two", "three"), tasks=("classification",))
    assert {row["status"] for row in done.rows} == {"ok"}


@pytest.mark.parametrize("beside", [False, True])
def test_what_fails_fails_alone(zoo, measure, monkeypatch, beside):
    real = zeroshot_classification.run

    def run(inputs):
        if inputs.dataset.name == "one":
            raise ZeroDivisionError("nobody thought of this")
        return real(inputs)

    monkeypatch.setattr(zeroshot_classification, "run", run)
    broken = zoo / "two/test/red/000.png"
    broken.write_bytes(broken.read_bytes()[:60])
    done = measure(beside)
    failed = {(row["dataset"], row["task"]) for row in done.rows if row["status"] == "failed"}
    assert failed == {
        ("one", "zeroshot_classification"),
        ("two", "zeroshot_classification"),
        ("two", "linear_probe"),
    }
    assert {row["status"] for row in done.rows if row["dataset"] in ("pairs", "three")} == {"ok", "skipped"}
    assert done.exit_code == 70


def test_what_has_no_room_beside_the_encoding_is_done_alone(measure, monkeypatch):
    real = zeroshot_classification.run

    def run(inputs):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        return real(inputs)

    monkeypatch.setattr(zeroshot_classification, "run", run)
    done = measure(True, names=("one", "two"), tasks=("classification",))
    assert {row["status"] for row in done.rows} == {"ok"}
    assert done.exit_code == 0


def test_an_interrupt_does_not_wait_for_what_is_scored(zoo, measure, monkeypatch):
    let_go = threading.Event()
    embed = images.embed

    def embedding(encoder, dataset, *rest):
        if dataset.name == "two":
            raise KeyboardInterrupt
        return embed(encoder, dataset, *rest)

    monkeypatch.setattr(images, "embed", embedding)
    monkeypatch.setattr(zeroshot_classification, "run", lambda inputs: let_go.wait(30))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        measure(True, names=("one", "two"), tasks=("classification",))
    assert time.monotonic() - started < 20
    let_go.set()
    assert not [line for line in lines(zoo / "out") if line], "nothing was measured"
