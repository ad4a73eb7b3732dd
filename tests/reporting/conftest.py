"""One real run and its page for all tests of the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import made
import pytest

import clipeval


@dataclass(frozen=True)
class Run:
    """A results folder, the configuration that names its data, the cache it filled, and the page made of it."""

    results: Path
    config: Path
    cache: Path
    page: Path


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(root / "cache"))
        results, config = made.measured(root)
        page = clipeval.report(results, root / "page", config)
    return Run(results, config, root / "cache", page)
