"""The configuration of a run: a YAML file, with ``key=value`` settings on top. What every run can be told, and the
keys of pre-training."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from clipeval.condition import condition
from clipeval.errors import UsageError
from clipeval.explained import explain
from clipeval.paths import with_home
from clipeval.yaml_file import parse_yaml, read_yaml

Model = TypeVar("Model", bound=BaseModel)
_EXPONENT = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+")


def numbers(value: Any) -> Any:
    """``1e-3`` as a number, at any depth: YAML 1.1 reads it as text because it has no dot."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    return value


_AsText = Annotated[str, Field(pattern=r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?([eE][-+]?[0-9]+)?$")]
"""For editors: whether ``1e-3`` and ``150_000`` are numbers is a question of the version of YAML."""
Real = Annotated[float, BeforeValidator(numbers, json_schema_input_type=float | _AsText), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(numbers, json_schema_input_type=int | _AsText)]
Weight = Annotated[Real, Field(gt=0)]
Place = Annotated[str, AfterValidator(with_home)]
"""A path, or several with ``::``; ``~`` is the home folder."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


_FIRST = ("source", "shards", "weight")
"""The keys of a source that every checkpoint holds."""


class SourceEntry(Frozen):
    """An upstream data set that takes part in the training."""

    source: str
    """Its name in the results table."""
    shards: Place
    """Where its image-text pairs are: webdataset shards, lists of files, Parquet, the training split of a data set of
    the hub (``hf:NAME``), or ``builtin:icons/material+phosphor``."""
    weight: Real = Field(1.0, gt=0)
    """Its share of the samples seen, relative to the weights of the other sources."""
    bad_shards: Count = Field(0, ge=0)
    """So many shards may be missing or damaged; what is whole in those is used."""
    caption: Annotated[dict[str, Weight], Field(min_length=1, max_length=16)] | None = None
    """Where captions are, with their shares: ``{txt: 0.3, json.recaption: 0.7}`` in shards, columns in lists."""
    where: str | None = None
    """Which samples are used, by what is known of them: ``clip_l14_similarity_score > 0.28``."""
    counts: Literal["index", "stats"] = "index"
    """What tells how many samples shards have: an index of all of them, for which remote ones are fetched first, or the
    NNNNN_stats.json that img2dataset writes beside each."""

    @field_validator("caption", mode="before", json_schema_input_type=str | list[str] | dict[str, float] | None)
    @classmethod
    def _with_weights(cls, value: Any) -> Any:
        """One name or several without shares have equal ones."""
        names = [value] if isinstance(value, str) else value
        return (
            dict.fromkeys(names, 1.0) if isinstance(names, list) and all(isinstance(n, str) for n in names) else value
        )

    @field_validator("where")
    @classmethod
    def _is_condition(cls, value: str | None) -> str | None:
        if value is not None:
            condition(value)
        return value

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that are younger than some checkpoints are left out where they change nothing."""
        fields = type(self).model_fields
        return {key: value for key, value in serialize(self).items() if key in _FIRST or value != fields[key].default}


class EvaluateEntry(Frozen):
    """What ``clipeval run`` measures of the run's own checkpoints while it trains, into OUT/results."""

    every: Count = Field(gt=0)
    """Samples between evaluations; a checkpoint is saved for each, and the last one is evaluated too."""
    datasets: tuple[str, ...] = Field(min_length=1)
    """DATASET specs, data sets or suites, as after ``-d`` of ``clipeval run``."""
    tasks: tuple[str, ...] = ()
    """As after ``-t``; none named: the zero-shot tasks that a data set allows."""
    use_ema: bool = False
    """Measure the running average of the weights, which lies in OUT/ema then."""


class ValidateEntry(Frozen):
    """Held-out pairs whose loss is taken while the run trains, into OUT/results."""

    every: Count = Field(gt=0)
    """Samples between them; a checkpoint is saved for each, and the last one is validated too."""
    data: tuple[SourceEntry, ...] = Field(min_length=1)
    """Sources as those of the training, of built-in ones the test split; each is measured by itself."""
    batch_size: Count = Field(256, ge=2)
    """Pairs that are told apart: a loss depends on it, so runs that are compared need the same."""
    samples: Count = Field(4096, ge=2)
    """Pairs of each source, cut to whole batches."""
    use_ema: bool = False
    """Take the running average of the weights."""


warnings.filterwarnings("ignore", 'Field name "validate" in "Pretraining" shadows')  # a method that pydantic gave up


class RunConfig(Frozen):
    """What every run can be told, whatever it trains."""

    workers: Count | None = Field(None, ge=0)
    """Processes that decode images, per rank; None: chosen by the cores of this machine."""
    micro_batch: Count | None = Field(None, gt=0)
    """Samples that one process takes through the towers at a time; the gradient is that of the whole batch."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """On a loss or gradient that is not finite: end, or return to the newest checkpoint and leave that data out."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the towers; auto: bf16 on a GPU, fp32 elsewhere. The loss is in fp32 always."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: on a GPU where there is one."""
    activation_checkpointing: bool = False
    """Compute the towers' activations again in the backward pass: less memory, more time."""
    compile: bool = False
    """Let torch.compile make code of the towers."""
    seed: Count = Field(0, ge=0)
    """Of all that is drawn."""
    save_every: Count | None = Field(None, gt=0)
    """Save a checkpoint at the first batch end past every multiple of this many samples, or iterations of
    fine-tuning."""
    save_minutes: Real = Field(30.0, gt=0)
    """Save one when this many minutes have passed, too."""
    keep: Count | None = Field(None, gt=0)
    """How many checkpoints stay, the newest ones; None: all asked for by samples, and of others the newest 3."""
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the lines of OUT/log.jsonl go, too: TensorBoard (OUT/tensorboard) or Weights & Biases, whose packages are
    to be installed."""
    peak_tflops: Real | None = Field(None, gt=0)
    """What the device could do at best, for the MFU; None: by its name where that is known."""
    out: Place
    """The folder of the run."""
    resume: Literal["auto"] = "auto"
    """A run goes on from its newest checkpoint where there is one."""

    def on(self, device: str) -> Self:
        """The same with nothing left to the kind of device that it is trained on."""
        if self.precision != "auto":
            return self
        return self.model_copy(update={"precision": "bf16" if device == "cuda" else "fp32"})

    @property
    def names(self) -> tuple[str, int, int]:
        """What the names of checkpoints count, in how many digits, and how many samples are one of it."""
        return "samples", 12, 1

    def path(self, seen: int) -> Path:
        """The file of the checkpoint that has seen this many samples."""
        word, digits, samples = self.names
        return Path(self.out) / "checkpoints" / f"{word}_{seen // samples:0{digits}d}.pt"

    def seen(self, path: Path) -> int:
        """The samples that the checkpoint in a file has seen, by its name; 0 where that says nothing."""
        number = path.stem.rpartition("_")[2]
        return int(number) * self.names[2] if number.isdecimal() else 0


class Pretraining(Frozen):
    """What only pre-training can be told. The order of keys is that of a ladder's names."""

    model: str | dict[str, Any] | None = None
    """An architecture name of open_clip, or an inline open_clip model configuration: all of it, or changes of the
    architecture that its key ``base`` names or that ``init`` has. None: that of ``init``."""
    init: str | None = None
    """A MODEL spec: the checkpoint whose weights training begins with; None: weights that are drawn."""
    lock: Literal["image", "text"] | None = None
    """The tower that stays as it is (LiT, arXiv 2111.07991)."""
    arch: str = "custom"
    """Name of an inline model in the results table."""
    data: tuple[SourceEntry, ...] = Field(min_length=1)
    """Where image-text pairs come from."""
    workers: Count | None = Field(None, ge=0)
    """Processes that decode images, per rank; None: chosen by the cores of this machine."""
    bad_samples: Real = Field(0.01, ge=0, le=1)
    """The run stops when more than this share of the samples cannot be read."""
    samples: Count = Field(gt=0)
    """Samples seen at the end, exactly: the last batch is cut to fit."""
    batch_size: Count = Field(ge=2)
    """Samples per optimizer step, over all processes."""
    lanes: Count = Field(1, gt=0)
    """Parts of the data that stand side by side in every batch: ranks whose number divides theirs read only the shards
    of their own lanes, and the stream stays the same for any number of ranks."""
    micro_batch: Count | None = Field(None, gt=0)
    """Samples that one process takes through the towers at a time; the gradient is that of the whole batch."""
    loss: Literal["clip", "siglip"] = "clip"
    """Softmax over the batch as in CLIP, or a sigmoid per pair as in SigLIP."""
    tile: Count | None = Field(None, gt=0)
    """Rows and columns of the similarity matrix held at a time; None: 1024, on a GPU up to 8192 by its memory."""
    lr: Real = Field(gt=0)
    """Peak learning rate."""
    warmup: Count | None = Field(None, ge=0)
    """Samples of linear warm-up; None: a twentieth of the run, at most 10,000 batches."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After warm-up: down to zero along a cosine, or constant until the last ``cooldown`` samples."""
    cooldown: Count = Field(0, ge=0)
    """Samples of linear decay to zero at the end of a constant schedule."""
    start_from: Place | None = None
    """A checkpoint, or the folder, of another run to go on from, as a branch or with other settings; its samples count
    as seen."""
    weight_decay: Real = Field(0.2, ge=0)
    """Of AdamW, on matrices only."""
    betas: tuple[Real, Real] = (0.9, 0.98)
    """Of AdamW."""
    eps: Real = Field(1e-6, gt=0)
    """Of AdamW."""
    grad_clip: Real | None = Field(None, gt=0)
    """Largest norm of the whole gradient."""
    ema: Real | None = Field(None, gt=0, lt=1)
    """Decay per step of a running average of the weights, kept beside them."""
    evaluate: EvaluateEntry | None = None
    """What to measure of the run's own checkpoints meanwhile, with ``clipeval run``."""
    validate: ValidateEntry | None = None  # type: ignore[assignment]
    """Loss and recall on held-out pairs."""


class PretrainConfig(RunConfig, Pretraining):
    """Everything a pre-training run can be told. Sizes and times are counted in samples (image-text pairs)."""

    @property
    def warmup_samples(self) -> int:
        """Samples of linear warm-up."""
        if self.warmup is not None:
            return self.warmup
        return min(self.samples // 20, 10_000 * self.batch_size, self.samples - self.cooldown)

    def is_done(self, saved: dict[str, Any]) -> bool:
        """Whether a checkpoint is the last one of the run."""
        return bool(saved["metadata"]["samples_seen"] == self.samples)


def passes(start: int, stop: int, every: int | None) -> bool:
    """Whether a multiple of ``every`` lies in (start, stop]."""
    return every is not None and stop // every > start // every


def load_pretrain(path: Path, settings: list[str]) -> PretrainConfig:
    """Read and validate a configuration. Each of ``settings`` is ``key=value``, dots leading into nested keys.

    Raises UsageError that names the file, the settings and the key.
    """
    return parse_pretrain(*read(path, settings, PretrainConfig))


def parse_pretrain(document: dict[str, Any], origin: str) -> PretrainConfig:
    """Validate the keys of a configuration; ``origin`` says in messages where they stand. Raises UsageError."""
    if isinstance(document.get("model"), dict):
        document = document | {"model": numbers(document["model"])}
    config = validated(document, origin, PretrainConfig)
    _check_schedule(config, origin)
    return config


def read(path: Path, settings: Sequence[str], model: type[BaseModel]) -> tuple[dict[str, Any], str]:
    """The keys of a file with ``key=value`` settings on top, and what messages call them. Raises UsageError."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a mapping with the keys {', '.join(model.model_fields)}.")
    for setting in settings:
        apply_setting(document, setting)
    return document, " ".join([str(path), *settings])


def validated(document: Any, origin: str, model: type[Model]) -> Model:
    """The document as a ``model``. Raises UsageError that names the key."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise UsageError(explain(error, origin, model)) from error


def _check_schedule(config: PretrainConfig, origin: str) -> None:
    warmup = config.warmup_samples
    if warmup >= config.samples:
        raise UsageError(
            f"{origin}: warmup: {warmup} samples of warm-up leave nothing of a run of {config.samples}. "
            "Give fewer than `samples`; a tenth is common."
        )
    for key, entry in (("evaluate", config.evaluate), ("validate", config.validate)):
        if entry and entry.use_ema and config.ema is None:
            raise UsageError(f"{origin}: {key}.use_ema: there is no running average of the weights. Set `ema`.")
    if config.model is None and config.init is None:
        raise UsageError(f"{origin}: model: this key is required, or `init`: a checkpoint with an architecture.")
    if config.cooldown and config.schedule != "constant":
        raise UsageError(f"{origin}: cooldown: belongs to `schedule: constant`; the cosine ends at zero by itself.")
    if config.batch_size % config.lanes:
        raise UsageError(
            f"{origin}: lanes: a batch of {config.batch_size} samples cannot be divided equally among {config.lanes} "
            "lanes. Give a batch_size that is a multiple of them."
        )
    if warmup + config.cooldown > config.samples:
        raise UsageError(
            f"{origin}: cooldown: {warmup} samples of warm-up and {config.cooldown} of cooldown are more than "
            f"`samples`, {config.samples}."
        )


def apply_setting(document: dict[str, Any], setting: str) -> None:
    """Set one ``key=value`` in the document, creating mappings on the way where the file has none."""
    key, equals, text = setting.partition("=")
    *parents, last = key.split(".")
    if not equals or not all([*parents, last]):
        raise UsageError(f"'{setting}': expected KEY=VALUE, for example lr=1e-3 or model.embed_dim=32.")
    node: Any = document
    for depth, name in enumerate(parents):
        if isinstance(node, dict):
            node = node.setdefault(name, {})
        else:
            node = node[_index(node, name, ".".join(parents[:depth]), setting)]
    if isinstance(node, dict):
        node[last] = parse_yaml(text, f"'{setting}'")
    else:
        node[_index(node, last, ".".join(parents), setting)] = parse_yaml(text, f"'{setting}'")


def _index(node: Any, name: str, where: str, setting: str) -> int:
    if not isinstance(node, list):
        raise UsageError(f"'{setting}': {where} is {node!r:.60} in the file, which has no keys inside.")
    if not name.isdecimal() or int(name) >= len(node):
        raise UsageError(f"'{setting}': {where} is a list of {len(node)}: name an entry by its number from 0.")
    return int(name)
