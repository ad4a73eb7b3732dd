"""The configurations of fine-tuning and patching: a YAML file, with ``key=value`` settings on top."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from clipeval.errors import UsageError, suggest
from clipeval_train.config import Count, Frozen, Model, Place, Real, RunConfig, apply_setting, read, validated
from clipeval_train.finetune.presets import PRESETS

_LENGTHS = {"iterations", "epochs"}
_RANDAUGMENT = re.compile(r"rand(-(m|n|mmax)\d+|-(mstd|p)\d+(\.\d+)?|-inc[01]|-t(weights|3aw?))*")
"""The words of ``timm.data.auto_augment.rand_augment_transform``."""


class Recipe(Frozen):
    """How to fine-tune, apart from what."""

    head: Literal["zeroshot", "probe", "random"] = "zeroshot"
    """What the classifier starts from: the class names' text embeddings, clipeval's linear probe, or nothing."""
    train_head: bool = True
    """Whether the classifier is trained with the image tower, or stays as it starts."""
    iterations: Count | None = Field(None, gt=0)
    """Steps of the optimizer in all."""
    epochs: Real | None = Field(None, gt=0)
    """In place of ``iterations``: passes over the training images of all data sets together."""
    batch_size: Count = Field(gt=0)
    """Images per iteration, over all processes; an iteration is on one data set."""
    lr: Real = Field(gt=0)
    """Peak learning rate."""
    min_lr: Real = Field(0.0, ge=0)
    """The learning rate rises linearly to ``lr`` and falls to ``min_lr`` by a cosine."""
    warmup: Real = Field(0.0, ge=0)
    """Iterations; below 1: a share of the run."""
    cooldown: Real = Field(0.0, ge=0)
    """Iterations at ``min_lr`` at the end; below 1: a share of the run."""
    weight_decay: Real = Field(0.1, ge=0)
    """Of AdamW, on matrices only."""
    layer_decay: Real = Field(1.0, gt=0, le=1)
    """Each layer of the tower learns at this multiple of the rate of the layer above it."""
    drop_path: Real = Field(0.0, ge=0, lt=1)
    """Chance of skipping the last block's branches; it rises linearly from 0 at the first block."""
    grad_clip: Real | None = Field(None, gt=0)
    """Largest norm of the whole gradient."""
    label_smoothing: Real = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    ema: Real | None = Field(None, gt=0, lt=1)
    """Decay per iteration of a running average of the weights, which is then what is evaluated and saved."""
    crop: tuple[Real, Real] = (0.9, 1.0)
    """Smallest and largest area of the random crop, as shares of the image's."""
    flip: Real = Field(0.0, ge=0, le=1)
    """Chance of a mirrored image."""
    randaugment: str | None = None
    """In timm's words: ``rand-m9-n3`` is three operations of magnitude 9 in 10, ``-inc1`` stronger with it throughout,
    ``-mstd0.5`` of a magnitude that varies (101: uniformly up to it)."""

    def warmup_of(self, iterations: int) -> int:
        """Iterations of warm-up in a run of this length."""
        return round(self.warmup * iterations if self.warmup < 1 else self.warmup)

    def cooldown_of(self, iterations: int) -> int:
        """Iterations of cooldown in a run of this length."""
        return round(self.cooldown * iterations if self.cooldown < 1 else self.cooldown)


class FinetuneConfig(RunConfig, Recipe):
    """Everything a fine-tuning run can be told. Lengths are counted in iterations."""

    model: str
    """A MODEL spec that names one checkpoint."""
    data: tuple[str, ...] = Field(min_length=1)
    """DATASET specs. With several, iterations take them in turn."""
    preset: str | None = None
    """A published recipe, whose keys the file's own replace: ilharco2022, joint8, wise-ft or imagenet."""
    hold_out: Real = Field(0.0, ge=0, le=0.5)
    """Share of each class kept out of training where a data set has no validation split, to choose alpha on."""
    eval_every: Count | None = Field(None, gt=0)
    """Iterations between evaluations; None: only before the first and after the last."""

    @property
    def names(self) -> tuple[str, int, int]:
        """Checkpoints are called by iterations."""
        return "iteration", 8, self.batch_size

    def is_done(self, saved: dict[str, Any]) -> bool:
        """Whether a checkpoint is the last one of the run."""
        return saved["resume"] is None


class PatchConfig(Frozen):
    """Everything patching can be told."""

    model: str
    """The checkpoint that was fine-tuned."""
    finetuned: str
    """What became of it."""
    data: tuple[str, ...] = Field(min_length=1)
    """DATASET specs whose mean accuracy is to be high."""
    control: str | None = None
    """DATASET spec whose accuracy may not drop by more than ``max_drop`` points; None: no such bound."""
    max_drop: Real = Field(1.0, ge=0)
    """Points of accuracy that the control data set may lose."""
    alphas: tuple[Real, ...] = tuple(step / 10 for step in range(11))
    """Shares of the fine-tuned weights to try; 0, the model as it was, is always tried."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the encoders compute in."""
    workers: Count | None = Field(None, ge=0)
    """Processes that decode images; None: chosen by the cores of this machine."""
    out: Place
    """The folder of what comes of it."""


def load_finetune(path: Path, settings: list[str]) -> FinetuneConfig:
    """Read and validate a configuration on top of its preset. Raises UsageError that names the file and the key."""
    return _recipe(*read(path, settings, FinetuneConfig), FinetuneConfig)


def load_patch(path: Path, settings: list[str]) -> PatchConfig:
    """Read and validate a configuration. Raises UsageError that names the file and the key."""
    document, origin = read(path, settings, PatchConfig)
    config = validated(document, origin, PatchConfig)
    if outside := [alpha for alpha in config.alphas if not 0 <= alpha <= 1]:
        raise UsageError(f"{origin}: alphas: {outside[0]} is not between 0 and 1.")
    return config


def parse_recipe(text: str, origin: str) -> Recipe:
    """The recipe that ``PRESET [KEY=VALUE]...`` describes. Raises UsageError; ``origin`` says where the text stands."""
    preset, *settings = text.split() or [""]
    document: dict[str, Any] = {"preset": preset}
    for setting in settings:
        apply_setting(document, setting)
    return _recipe(document, origin, Recipe)


def _recipe(document: dict[str, Any], origin: str, model: type[Model]) -> Model:
    """The document with its preset's keys where it has none. A length of its own, in either unit, replaces both."""
    name = document.get("preset")
    if name is not None and name not in PRESETS:
        raise UsageError(
            f"{origin}: preset: '{name}' is not one.{suggest(str(name), PRESETS)} Presets: {', '.join(PRESETS)}."
        )
    replaced = _LENGTHS if _LENGTHS & document.keys() else set()
    preset = PRESETS.get(str(name), {})
    keys = {key: preset[key] for key in preset.keys() & model.model_fields.keys() - replaced} | document
    if "preset" not in model.model_fields:
        del keys["preset"]
    config = validated(keys, origin, model)
    assert isinstance(config, Recipe)
    _check_recipe(config, origin)
    return config


def _check_recipe(recipe: Recipe, origin: str) -> None:
    if (recipe.iterations is None) == (recipe.epochs is None):
        raise UsageError(f"{origin}: give either `iterations` or `epochs`.")
    if recipe.head == "random" and not recipe.train_head:
        raise UsageError(f"{origin}: train_head: a random classifier that is not trained stays at chance.")
    if not 0 < recipe.crop[0] <= recipe.crop[1] <= 1:
        raise UsageError(f"{origin}: crop: {list(recipe.crop)}: expected two shares of the area, such as [0.9, 1.0].")
    if recipe.randaugment and not _RANDAUGMENT.fullmatch(recipe.randaugment):
        raise UsageError(
            f"{origin}: randaugment: '{recipe.randaugment}': expected timm's words, rand with any of "
            "-mMAGNITUDE, -nOPERATIONS, -mstdSPREAD, -mmaxLIMIT, -pPROBABILITY, -inc1, -tweights, -t3a and -t3aw, such "
            "as rand-m8-inc1-mstd101."
        )
    if recipe.iterations:
        check_length(recipe, recipe.iterations, origin)


def check_length(recipe: Recipe, iterations: int, origin: str) -> None:
    """Raises UsageError when warm-up and cooldown leave nothing of a run: its learning rate would never be reached."""
    if (rising := recipe.warmup_of(iterations)) + (still := recipe.cooldown_of(iterations)) >= iterations:
        raise UsageError(
            f"{origin}: warmup: {rising:,} iterations of warm-up and {still:,} of cooldown leave nothing of "
            f"{iterations:,}. Give fewer, or a share of the run such as 0.1."
        )
