"""The files that the commands read, for those who ask what may stand in them."""

from __future__ import annotations

from pydantic import BaseModel


def of_command(name: str) -> tuple[type[BaseModel], tuple[str, ...]]:
    """What the file of a command says, and which of its required keys may come from elsewhere, such as a preset."""
    from clipeval_train.config import PretrainConfig
    from clipeval_train.finetune.config import FinetuneConfig, PatchConfig
    from clipeval_train.finetune.presets import PRESETS
    from clipeval_train.ladder.grid import LadderConfig

    models: dict[str, type[BaseModel]] = {
        "pretrain": PretrainConfig,
        "finetune": FinetuneConfig,
        "patch": PatchConfig,
        "ladder": LadderConfig,
    }
    given = {key for preset in PRESETS.values() for key in preset} if name == "finetune" else ()
    return models[name], tuple(given)
