"""Text towers of transformers: only their configuration is read, and nothing in it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipeval.models import bounds, hub, library, rules
from clipeval.remote.hub import Repository, Snapshot

_CONFIG = "config.json"


def of(
    text_cfg: dict[str, Any], wanted_by: str, *, own: Snapshot | None = None, offline: bool
) -> dict[str, Any] | None:
    """The configuration of the tower that ``text_cfg`` names, from a folder or from the hub (``own``: where the
    checkpoint comes from); None where it is open_clip's own.

    Raises ModelError when it is not to be had, would run code, or is nothing that open_clip builds.
    """
    name = text_cfg.get("hf_model_name")
    if not name:
        return None
    if Path(name).is_dir():
        path = Path(name) / _CONFIG
    else:
        found = hub.snapshot(Repository("model", name), (_CONFIG,), wanted_by, offline=offline, own=own)
        with hub.as_model_errors(wanted_by):
            path = found.file(_CONFIG)
    config = rules.read_json(path)
    bounds.refuse_code(config, path)
    bounds.check_tower(config, library.tower_kinds(), path)
    # what begins so says where and how it was read once, and is nothing of the model
    return {key: value for key, value in config.items() if not key.startswith("_")}
