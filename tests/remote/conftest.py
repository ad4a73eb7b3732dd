"""A hub that this process asks."""

from __future__ import annotations

import os

import pytest
from hub_files import FILES
from loopback_hub import Hub

from clipeval.remote import hub as remote
from clipeval.remote import origin


@pytest.fixture
def served(hub: Hub, monkeypatch):
    """The hub of the loopback, asked by this process, with the repository ``org/it``; tries follow one another at
    once."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for name in list(os.environ):
        if name.startswith("HF_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    for name in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET"):
        monkeypatch.setenv(name, hub.environment[name])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.folder / "hf/hub"))
    monkeypatch.setattr(origin, "WAITS", (0.01,) * 4)
    close_session()
    remote.begin()
    hub.repository("org/it", FILES)
    yield hub
    close_session()
    remote.begin()
