"""Text towers of transformers: only their configuration is read, and nothing in it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipeval.models import hub, library, schema


def of(text_cfg: dict[str, Any], wanted_by: str, *, offline: bool) -> dict[str, Any] | None:
    """The configuration of the tower that ``text_cfg`` names, from a folder or from the hub; None where it is
    open_clip's own. Raises ModelError when it is not to be had, would run code, or is nothing that open_clip builds."""
    name = text_cfg.get("hf_model_name")
    if not name:
        return None
    if Path(name).is_dir():
        path = Path(name) / "config.json"
    else:
        path = hub.fetch(name, ("config.json",), wanted_by, offline=offline)
    config = schema.read_json(path)
    schema.refuse_code(config, path)
    schema.check_tower(config, library.tower_kinds(), path)
    # what begins so says where and how it was read once, and is nothing of the model
    return {key: value for key, value in config.items() if not key.startswith("_")}
