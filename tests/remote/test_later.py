"""Files that are noted instead of fetched, and requests that outlast another thread's switch."""

from __future__ import annotations

import threading

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from clipeval.errors import DataError, NotHereError
from clipeval.remote import later, libraries
from clipeval.remote.origin import tried


def fetch(name, size, calls):
    later.require_now(name, size, lambda: fetch(name, size, calls))
    calls.append(name)
    return name


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_look_notes_every_large_file_and_fetches_small_ones(at_once):
    calls = []
    sizes = {"a": 2_000_000, "b": 10, "c": None, "d": 5_000_000}
    wanted = [lambda name=name, size=size: fetch(name, size, calls) for name, size in sizes.items()]
    with later.noting() as found, pytest.raises(NotHereError, match="a is not on this machine yet"):
        later.each(wanted, at_once)
    assert {(file.what, file.size) for file in found} == {("a", 2_000_000), ("c", None), ("d", 5_000_000)}
    assert calls == ["b"]
    assert sorted(file.fetch() for file in found) == ["a", "c", "d"]
    assert later.each(wanted, at_once) == ["a", "b", "c", "d"]


def test_other_errors_end_a_look_and_it_is_over_afterwards():
    def broken():
        raise DataError("broken")

    with later.noting() as found, pytest.raises(DataError, match="broken"):
        later.each([lambda: fetch("a", None, []), broken])
    assert [file.what for file in found] == ["a"]
    assert not later.is_noting()
    with later.noting(wanted=False) as found:
        assert fetch("a", None, []) == "a"
    assert found == []


def test_another_thread_fetches_during_a_look():
    calls = []
    with later.noting():
        thread = threading.Thread(target=lambda: fetch("a", None, calls))
        thread.start()
        thread.join()
    assert calls == ["a"]


def test_a_request_waits_for_the_end_of_another_threads_switch(monkeypatch):
    inside, asked = threading.Event(), threading.Event()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def request():
        asked.set()
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled("offline mode is enabled")
        return "answer"

    def model():
        with libraries.kept_offline(), libraries.kept_offline():
            inside.set()
            asked.wait(10)

    thread = threading.Thread(target=model)
    thread.start()
    inside.wait(10)
    assert tried(request, lambda error: False) == "answer"
    thread.join()
    assert constants.HF_HUB_OFFLINE is False


def test_a_switch_that_is_not_ours_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def request():
        raise OfflineModeIsEnabled("offline mode is enabled")

    with pytest.raises(OfflineModeIsEnabled):
        tried(request, lambda error: False)
