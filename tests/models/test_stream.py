"""Copies beside the device's work, on a device that does nothing before it has to.

The stand-in runs what is queued on its streams only when the host waits, and no more of it than that wait needs. So
what is read too early is garbage, and it is seen what a wait has made the host wait for.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipeval.embeddings import batches
from clipeval.embeddings.batches import Batch
from clipeval.models import stream

GARBAGE = -1.0


class Stream:
    def __init__(self, *_):
        self.queue, self.done, self.device_index = [], 0, 0

    def add(self, action):
        self.queue.append(action)

    def run(self, until):
        while self.done < until:
            action, self.done = self.queue[self.done], self.done + 1
            action()

    def wait_stream(self, other):
        until = len(other.queue)
        self.add(lambda: other.run(until))


class Device:
    def __init__(self):
        self.main, self.current, self.computed, self.launched = Stream(), None, 0, 0
        self.current = self.main

    def event(device):
        class Event:
            def record(self, on):
                self.on, self.until = on, len(on.queue)

            def synchronize(self):
                self.on.run(self.until)

        return Event()

    def stream(self, side):
        device = self

        class Inside:
            def __enter__(self):
                device.current = side

            def __exit__(self, *_):
                device.current = device.main

        return Inside()


class Tensor:
    """Numbers on the host or on the device."""

    dtype = torch.float32

    def __init__(self, machine, values, is_cuda=False, pinned=False):
        self.machine, self.values, self.is_cuda, self.pinned = machine, values, is_cuda, pinned
        self.shape, self.device, self.recorded = values.shape, "cuda:0" if is_cuda else "cpu", []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        return Tensor(self.machine, self.values[rows], self.is_cuda, self.pinned)

    def pin_memory(self):
        return Tensor(self.machine, self.values, pinned=True)

    def to(self, device, non_blocking=False):
        assert self.pinned, "a copy of other memory waits for all that is queued"
        assert non_blocking
        return Tensor(self.machine, np.full_like(self.values, GARBAGE), is_cuda=True)._later(lambda: self.values)

    def _later(self, values):
        def act():
            self.values[:] = values()

        self.machine.current.add(act)
        return self

    def copy_(self, other, non_blocking=False):
        assert non_blocking
        assert self.pinned
        return self._later(lambda: other.values)

    def record_stream(self, on):
        self.recorded.append(on)

    def numpy(self):
        return self.values.copy()


@pytest.fixture
def device(monkeypatch):
    machine = Device()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: machine.current)
    monkeypatch.setattr(torch.cuda, "stream", machine.stream)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", machine.event)

    def empty(shape, dtype, pin_memory):
        return Tensor(machine, np.full(shape, GARBAGE), pinned=pin_memory)

    monkeypatch.setattr(torch, "empty", empty)
    stream._side.cache_clear()
    yield machine
    stream._side.cache_clear()


class Encoder:
    device = "cuda"
    info = SimpleNamespace(model="m")

    def __init__(self, machine):
        self.machine = machine
        self.sent = []

    def encode(self, rows):
        machine, there = self.machine, stream.sent(rows, "cuda")
        self.sent.append(there)
        machine.launched += 1

        def compute():
            machine.computed += 1
            return there.values * 2

        return Tensor(machine, np.full(rows.shape, GARBAGE), is_cuda=True)._later(compute)


def test_results_are_right_and_nobody_waits_for_later_batches(device):
    encoder = Encoder(device)
    given = [np.arange(start, start + 3, dtype=float) for start in range(0, 21, 3)]
    items = ((number, Batch(Tensor(device, rows))) for number, rows in enumerate(given))
    waited = []
    for number, found in batches.encoded(encoder, "images", items, encoder.encode):
        np.testing.assert_array_equal(found, given[number] * 2)
        waited.append((device.computed - number - 1, device.launched - number - 1))
    assert waited == [(0, 2)] * 5 + [(0, 1), (0, 0)], "beyond its own: none computed, two under way"
    assert all(tensor.recorded == [device.main] for tensor in encoder.sent)


def test_the_way_there_does_not_queue_behind_the_work(device):
    """With the main stream busy, what was sent can be copied on its own."""
    machine, blocked = device, []
    machine.main.add(lambda: blocked.append(1))
    there = stream.sent(Tensor(machine, np.ones(3)), "cuda")
    side = stream._side(0)
    side.run(len(side.queue))
    assert not blocked
    assert (there.values == 1).all()


def test_on_a_cpu_each_batch_is_handed_out_before_the_next_is_taken():
    taken = []

    def items():
        for number in range(3):
            taken.append(number)
            yield number, Batch(torch.full((2,), float(number)))

    encoder = SimpleNamespace(device="cpu", info=SimpleNamespace(model="m"))
    encoder = type("Encoder", (), vars(encoder))()
    for number, found in batches.encoded(encoder, "images", items(), lambda rows: rows + 1):
        assert taken == list(range(number + 1))
        assert found.tolist() == [number + 1.0] * 2
    assert list(batches.encoded(encoder, "images", [], lambda rows: rows)) == []
