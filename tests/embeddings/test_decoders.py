"""Processes that decode for a whole run: what they give, what they outlive, and that none is left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from imports import ROOT
from PIL import Image
from waiting import until

from clipeval.datasets.loaded import LoadedDataset
from clipeval.embeddings import pixels
from clipeval.embeddings.decoders import Decoders
from clipeval.embeddings.decoding import Decoding, sent
from clipeval.embeddings.pixels import LoaderSettings, loaded
from clipeval.errors import DataError, StoreError


def colour(index, shift=0):
    return np.full((4, 6, 3), (index + shift) % 251, np.uint8)


def made(name, n=70, shift=0, read=None):
    """A data set whose image k is of one colour, k + ``shift``."""
    return LoadedDataset(
        name=name,
        split="test",
        fingerprint=name,
        ids=[f"{name}-{index}" for index in range(n)],
        read=read or (lambda index: Image.fromarray(colour(index, shift))),
    )


def checkpoint(to_pixels=np.asarray, shape=(4, 6, 3)):
    return SimpleNamespace(pixels=to_pixels, pixel_settings={}, record_shape=shape, device="cpu")


@pytest.fixture
def decoders():
    found = Decoders(2)
    yield found
    found.close()


def read(decoders, dataset, encoder=None, keeps=(), size=7, indices=None):
    """All pixels, and how many images were decoded."""
    indices = np.arange(len(dataset)) if indices is None else indices
    settings = LoaderSettings(size, 2, keeps=keeps, decoders=decoders)
    with loaded(dataset, encoder or checkpoint(), indices, settings) as batches:
        found = [(chosen, tensor.numpy().copy(), decoded) for chosen, tensor, decoded in batches]
    assert np.array_equal(np.concatenate([chosen for chosen, _, _ in found]), indices)
    assert [len(chosen) for chosen, _, _ in found[:-1]] == [size] * (len(found) - 1)
    return np.concatenate([tensor for _, tensor, _ in found]), sum(decoded for *_, decoded in found)


def processes(decoders):
    return [hand.process.pid for hand in decoders._hands]


def expected(dataset, shift=0):
    return np.stack([colour(index, shift) for index in range(len(dataset))])


def test_the_same_processes_decode_one_data_set_after_another(decoders):
    sets = [made("one"), made("two", 91, 5), made("three", 3, 9)]
    decoders._carried += sets
    seen = set()
    for dataset, shift in zip(sets, (0, 5, 9), strict=True):
        for _ in range(2):
            found, decoded = read(decoders, dataset)
            assert np.array_equal(found, expected(dataset, shift))
            assert decoded == len(dataset)
            seen.add(tuple(processes(decoders)))
    assert len(seen) == 1
    assert len(next(iter(seen))) == 2


def test_nothing_is_started_for_little_or_for_what_is_cached(decoders):
    read(decoders, made("few", 63))
    dataset = made("many")
    read(None, dataset, keeps=["test"])
    found, decoded = read(decoders, dataset)
    assert (decoded, processes(decoders)) == (0, [])
    assert np.array_equal(found, expected(dataset))


def test_a_damaged_record_is_decoded_again(decoders, cache):
    dataset = made("many")
    read(None, dataset, keeps=["test"])
    [path] = cache.glob("pixels-*/*/*/pixels.rec")
    data = bytearray(path.read_bytes())
    data[50 * (4 * 6 * 3 + 4) + 9] ^= 1
    path.write_bytes(data)
    found, decoded = read(decoders, dataset)
    assert decoded == 1
    assert np.array_equal(found, expected(dataset))


def test_a_set_that_came_later_is_forked(decoders):
    read(decoders, made("one"))
    before = processes(decoders)
    later = made("later", shift=3)
    assert np.array_equal(read(decoders, later)[0], expected(later, 3))
    assert set(processes(decoders)).isdisjoint(before)


def test_a_broken_image_is_named_and_the_processes_stay(decoders):
    def broken(index):
        if index in (33, 60):
            raise DataError(f"sample bad-{index}: broken")
        return Image.fromarray(colour(index))

    sets = [made("broken", read=broken), made("sound", shift=2)]
    decoders._carried += sets
    with pytest.raises(DataError, match="bad-33"):
        read(decoders, sets[0])
    before = processes(decoders)
    assert np.array_equal(read(decoders, sets[1])[0], expected(sets[1], 2))
    assert processes(decoders) == before


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(("error", "kind"), [(ZeroDivisionError("x"), ZeroDivisionError), (Odd(1, 2), RuntimeError)])
def test_errors_that_nobody_thought_of_arrive_with_their_trace(decoders, error, kind):
    def fails(index):
        raise error

    with pytest.raises(kind, match=str(error)) as met:
        read(decoders, made("odd", read=fails))
    assert "in fails" in "".join(met.value.__notes__)


@pytest.mark.parametrize("how", ["a closure", "too large"])
def test_functions_that_cannot_be_sent_are_forked(decoders, how):
    extra = np.random.default_rng(0).integers(0, 9, 300_000)
    function = (lambda image: np.asarray(image) + 1) if how == "a closure" else Adding(extra)
    dataset, other = made("one"), made("two")
    decoders._carried += [dataset, other]
    found, _ = read(decoders, dataset, checkpoint(function))
    assert np.array_equal(found, expected(dataset) + (1 if how == "a closure" else extra[0]))
    assert processes(decoders) == [], "they would hold what they were forked with"
    assert np.array_equal(read(decoders, other)[0], expected(other))


class Adding:
    def __init__(self, values):
        self.values = values

    def __call__(self, image):
        return np.asarray(image) + np.uint8(self.values[0])


def test_a_function_that_can_be_sent_needs_no_fork(decoders):
    dataset = made("one")
    read(decoders, dataset)
    before = processes(decoders)
    found, _ = read(decoders, dataset, checkpoint(Adding(np.array([7]))))
    assert np.array_equal(found, expected(dataset) + 7)
    assert processes(decoders) == before


def test_records_larger_than_a_piece(decoders, monkeypatch):
    decoders._slot_bytes = 50
    dataset = made("one")
    assert np.array_equal(read(decoders, dataset)[0], expected(dataset))
    decoders._slot_bytes = 150  # two images of a batch of seven
    decoders.close()
    assert np.array_equal(read(decoders, dataset)[0], expected(dataset))


def test_a_process_that_is_killed_is_replaced(decoders, capsys):
    def slow(index):
        time.sleep(0.02)
        return Image.fromarray(colour(index))

    dataset = made("slow", read=slow)
    killer = threading.Timer(0.3, lambda: os.kill(processes(decoders)[0], signal.SIGKILL))
    killer.start()
    found, decoded = read(decoders, dataset)
    killer.join()
    assert np.array_equal(found, expected(dataset))
    assert decoded == len(dataset)
    assert capsys.readouterr().err.count("an image decoding process died, killed by signal 9") == 1
    assert len(set(processes(decoders))) == 2


def test_an_image_that_kills_processes_ends_its_data_set_only(decoders, capsys):
    def deadly(index):
        if index == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return Image.fromarray(colour(index))

    sets = [made("deadly", read=deadly), made("sound", shift=2)]
    decoders._carried += sets
    with pytest.raises(StoreError, match=r"deadly: 3 processes .*'deadly-35' to 'deadly-41' died.*signal 9"):
        read(decoders, sets[0])
    assert capsys.readouterr().err.count("died") == 3
    assert np.array_equal(read(decoders, sets[1])[0], expected(sets[1], 2))


def test_processes_that_cannot_be_started(decoders, monkeypatch):
    real, left = os.fork, iter(range(1))

    def fork():
        if next(left, None) is None:
            raise OSError(12, "Cannot allocate memory")
        return real()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", fork)
        with pytest.raises(StoreError, match="decode images: Cannot allocate memory"):
            read(decoders, made("one"))
    assert processes(decoders) == []
    assert multiprocessing.active_children() == []
    dataset = made("two", shift=1)
    assert np.array_equal(read(decoders, dataset)[0], expected(dataset, 1))


def test_an_interrupt_leaves_no_process(decoders):
    started = []

    def interrupted():
        settings = LoaderSettings(7, 2, keeps=(), decoders=decoders)
        with loaded(made("one"), checkpoint(), np.arange(70), settings) as batches:
            next(batches)
            started.extend(processes(decoders))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(started) == 2
    for process in started:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_what_is_wanted_of_it_in_another_order(decoders):
    dataset = made("one", 300)
    indices = np.random.default_rng(0).permutation(300)[:130]
    assert np.array_equal(read(decoders, dataset, indices=indices)[0], expected(dataset)[indices])


def test_a_disk_that_takes_nothing_is_said_once(decoders, cache, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(pixels.entries, "_keep", lambda *_: None)
    dataset = made("one")
    assert np.array_equal(read(decoders, dataset, keeps=["test"])[0], expected(dataset))
    assert capsys.readouterr().err.count("pixels are not kept") == 1


def test_what_a_function_returned_is_never_copied():
    from clipeval.models.own_encoder import OwnEncoder

    encoder, dataset = OwnEncoder.__new__(OwnEncoder), made("one")
    with pytest.raises(TypeError, match="not copied"):
        sent(Decoding(dataset, encoder.pixels, (1,), None), [dataset])


ORPHANS = """
import os, sys, time
import numpy as np
sys.path.insert(0, {tests!r})
from test_decoders import checkpoint, made
from clipeval.embeddings.decoders import Decoders
from clipeval.embeddings.pixels import LoaderSettings, loaded

decoders = Decoders(2)
with loaded(made("one"), checkpoint(), np.arange(70), LoaderSettings(7, 2, keeps=(), decoders=decoders)) as batches:
    next(batches)
    print(*[hand.process.pid for hand in decoders._hands], flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["time.sleep(60)", "raise SystemExit", "os._exit(0)"])
def test_no_process_outlives_its_parent(end, tmp_path):
    program = ORPHANS.format(tests=str(Path(__file__).parent), end=end)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "CLIPEVAL_CACHE": str(tmp_path)}
    command, log = [sys.executable, "-c", program], tmp_path / "stderr"
    with log.open("w") as file:
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment)
    found = [int(word) for word in parent.stdout.readline().split()]
    assert len(found) == 2
    if "sleep" in end:
        parent.kill()
    parent.wait(timeout=30)
    parent.stdout.close()
    until(lambda: not any(_lives(process) for process in found), 20)
    assert log.read_text() == ""


def _lives(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
