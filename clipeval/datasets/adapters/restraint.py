"""CLIP_benchmark's builder kept from running shell commands, and from the network where that is forbidden."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from clipeval.errors import DataError, NotHereError
from clipeval.remote.libraries import kept_offline


@contextlib.contextmanager
def restrained(name: str, root: Path, offline: bool) -> Iterator[None]:
    """Inside, CLIP_benchmark runs no shell command and, offline, asks no web server."""
    import datasets
    import requests
    from clip_benchmark.datasets import (
        builder,
        crossmodal3600,
        flickr30k_200,
        multilingual_mscoco,
        xtd10,
        xtd200,
    )

    def refuse_command(command: str, **keywords: object) -> NoReturn:
        raise DataError(
            f"{name}: not found in {root}. CLIP_benchmark would run the shell command `{command}` to get it; clipeval "
            f"runs none. Put the data there yourself, or use a copy on the hub (clip_benchmark:wds/NAME)."
        )

    def refuse_request(url: str, **keywords: object) -> NoReturn:
        raise NotHereError(f"{name}: {url} is not in {root}, and nothing is downloaded now (--offline or --plan).")

    modules = (builder, crossmodal3600, flickr30k_200, multilingual_mscoco, xtd10, xtd200)
    replaced: list[tuple[Any, str, Any]] = [(module, "call", refuse_command) for module in modules]
    if offline:
        replaced.append((requests, "get", refuse_request))
    originals = [(module, attribute, getattr(module, attribute)) for module, attribute, _ in replaced]
    for module, attribute, stand_in in replaced:
        setattr(module, attribute, stand_in)
    try:
        with kept_offline(datasets.config) if offline else contextlib.nullcontext():
            yield
    finally:
        for module, attribute, original in originals:
            setattr(module, attribute, original)
