"""The hub's own libraries, kept from asking it: they have one switch for the whole process, so that our own requests in
other threads meet it too and are made again when it is off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Condition()
_before: list[tuple[Any, bool]] = []
_inside = 0


@contextmanager
def kept_offline(*modules: Any) -> Iterator[None]:
    """Inside, huggingface_hub and ``modules`` with a switch ``HF_HUB_OFFLINE`` answer from their cache only. They read
    the environment variable once, at import."""
    global _inside
    from huggingface_hub import constants

    with _lock:
        _inside += 1
        for module in (constants, *modules):
            _before.append((module, module.HF_HUB_OFFLINE))
            module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                while _before:
                    module, value = _before.pop()
                    module.HF_HUB_OFFLINE = value
                _lock.notify_all()


def despite(call: Callable[[], T]) -> T:
    """``call()``, again for as long as all that is against it is another thread that is inside ``kept_offline``."""
    while True:
        try:
            return call()
        except Exception as error:
            if type(error).__name__ != "OfflineModeIsEnabled":
                raise
            with _lock:
                if not _inside and _is_switched_off():
                    raise
                _lock.wait_for(lambda: not _inside)


def _is_switched_off() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE
