"""What a run goes on from: its own newest checkpoint, or one of another run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipeval.errors import DataError, UsageError
from clipeval_train import checkpoint
from clipeval_train.config import PretrainConfig, RunConfig

_FREE = {
    *("out", "resume", "device", "workers", "save_every", "save_minutes", "keep", "evaluate", "validate", "loggers"),
    *("peak_tflops", "bad_samples", "on_nonfinite", "micro_batch", "tile", "activation_checkpointing", "compile"),
    "eval_every",
}
"""Settings that may change between the parts of a run: they do not decide what is learnt, but for rounding."""
_BRANCH = {"samples", "cooldown", "start_from"}
"""Settings in which a branch may differ from its trunk and still be what a run of its own would be."""
_CHANGED = {
    *("lr", "warmup", "schedule", "grad_clip", "precision", "betas", "eps", "weight_decay", "data", "batch_size"),
    "lanes",
}
"""Settings that a run may change on its way, with ``start_from``. Its metadata tell it."""


@dataclass(frozen=True)
class Start:
    """A checkpoint to go on from; ``history`` has the configurations before the run's own, the oldest first."""

    saved: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    own_data: bool = True
    """Whether it was trained on the run's own data."""

    @property
    def remark(self) -> str:
        """Why a run that starts here is no point of a scaling law of its data; empty where it is."""
        return "; ".join(f"other data until {part['until']:,} samples" for part in self.history if part["other_data"])

    def require_same(self, what: str, key: str, facts: dict[str, Any]) -> None:
        """Raises DataError when a run with other metadata began: ``what`` they tell by ``key`` has changed since."""
        metadata = self.saved["metadata"]
        if (self.own_data or key != "data_fingerprint") and metadata.get(key) != facts.get(key):
            raise DataError(f"{facts['config']['out']}: {what} has changed since this run began. Give another `out`.")


def starting_point(config: RunConfig, newest: Path | None) -> Start | None:
    """The ``newest`` checkpoint in ``out`` where there is one, else the one that ``start_from`` names, or None.

    Raises UsageError when it is of a run whose settings may not be changed, or the last of one that has ended.
    """
    if newest:
        saved = checkpoint.load(newest)
        if key := _first_difference(config, saved, _FREE):
            raise UsageError(_refusal(config, saved, key))
        return Start(saved, saved["metadata"].get("history", []))
    if not isinstance(config, PretrainConfig) or config.start_from is None:
        return None
    path = checkpoint.find(Path(config.start_from))
    saved = checkpoint.load(path)
    if key := _first_difference(config, saved, _FREE | _BRANCH | _CHANGED):
        raise UsageError(
            f"start_from: '{path}' is of a run with {_both(config, saved, key)}. Leave {key} as it was; these may "
            f"change: {', '.join(sorted(_CHANGED))}."
        )
    if saved["resume"] is None:
        raise UsageError(
            f"start_from: '{path}' is the end of its run, and holds weights alone. Give an earlier checkpoint."
        )
    if (seen := saved["metadata"]["samples_seen"]) >= config.samples:
        raise UsageError(f"start_from: '{path}' has seen {seen:,} samples. Give more `samples`, or an earlier one.")
    history = saved["metadata"].get("history", [])
    if is_branch(config, saved):
        return Start(saved, history)
    own_data = _first_difference(config, saved, set(PretrainConfig.model_fields) - {"data"}) is None
    theirs = saved["metadata"]["config"]
    part = {"until": seen, "checkpoint": path.as_posix(), "other_data": not own_data, "config": theirs}
    return Start(saved, [*history, part], own_data)


def is_branch(config: PretrainConfig, saved: dict[str, Any]) -> bool:
    """Whether what goes on from this checkpoint is what a run of its own with this configuration would be."""
    trunk = saved["metadata"]["config"]
    constant_until = min(config.samples - config.cooldown, trunk["samples"] - trunk["cooldown"])
    return (
        config.schedule == "constant"
        and saved["metadata"]["samples_seen"] <= constant_until
        and _first_difference(config, saved, _FREE | _BRANCH) is None
    )


def other_settings(config: RunConfig, settings: str = "") -> str:
    """The words of a command that goes on from the newest checkpoint in ``out`` with other settings; empty where there
    is none."""
    out = Path(config.out)
    command = f"clipeval-train pretrain CONFIG {settings}start_from={out} out={out}-2"
    return command if isinstance(config, PretrainConfig) else ""


def _first_difference(config: RunConfig, saved: dict[str, Any], free: set[str]) -> str | None:
    theirs = saved["metadata"].get("config", {})
    for key, mine in config.model_dump(mode="json").items():
        default = type(config).model_fields[key].default  # of a setting that is younger than the checkpoint
        if key not in free and mine != theirs.get(key, default):
            return key
    return None


def _both(config: RunConfig, saved: dict[str, Any], key: str) -> str:
    theirs, mine = saved["metadata"].get("config", {}).get(key), config.model_dump(mode="json")[key]
    return f"{key}: {theirs!r:.80}, and this one says {mine!r:.80}"


def _refusal(config: RunConfig, saved: dict[str, Any], key: str) -> str:
    out, command = Path(config.out), other_settings(config)
    message = f"{out}: holds a run with {_both(config, saved, key)}. Give another `out`, or the settings of that run."
    if command and saved["resume"] is not None and key in _CHANGED | _BRANCH:
        message += f" To go on from what it has with these: {command}"
    return message
