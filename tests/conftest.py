"""Every test has a cache folder of its own, one thread, and no way to a hub."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A fresh cache folder per test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLIPEVAL_CACHE", str(folder))
    return folder
