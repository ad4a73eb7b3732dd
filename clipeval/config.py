"""benchmarks.yaml as frozen, validated objects. The file in the package is the base; a user's file adds to it."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from clipeval.errors import UsageError
from clipeval.explained import explain, user_keys
from clipeval.paths import expand
from clipeval.yaml_file import Loader, read_yaml

PACKAGED = "benchmarks.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, use_attribute_docstrings=True)


def _both(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,) * 2


def _all_three(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,) * 3


_Side = Annotated[int, Field(ge=1, le=4096, strict=True)]
_Level = Annotated[float, Field(ge=-1000, le=1000)]
_Spread = Annotated[float, Field(ge=1e-6, le=1000)]
Size = Annotated[tuple[_Side, _Side], BeforeValidator(_both, json_schema_input_type=_Side | tuple[_Side, _Side])]
"""Pixels: (height, width), or one number for both."""
Mean = Annotated[
    tuple[_Level, _Level, _Level],
    BeforeValidator(_all_three, json_schema_input_type=_Level | tuple[_Level, _Level, _Level]),
]
Std = Annotated[
    tuple[_Spread, _Spread, _Spread],
    BeforeValidator(_all_three, json_schema_input_type=_Spread | tuple[_Spread, _Spread, _Spread]),
]


class PreprocessEntry(_Frozen):
    """How images are made into a model's input, where its file does not say it or is wrong; names are open_clip's.

    ``mean`` and ``std`` apply to values from 0 to 1, per channel or for all three.
    """

    size: Size | None = None
    """Pixels: height and width, or one number for both."""
    mean: Mean | None = None
    """What is subtracted from each channel, or from all."""
    std: Std | None = None
    """What each channel, or all, is then divided by."""
    interpolation: Literal["bicubic", "bilinear"] | None = None
    """How images are resized."""
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    """Which side becomes ``size``: the shortest and cut, the longest and padded, or both, whatever the ratio."""
    fill_color: int | None = Field(None, ge=0, le=255)
    """Of what is padded."""


class ModelEntry(_Frozen):
    """A checkpoint named in the configuration. Either ``spec`` (a MODEL spec) or ``arch`` with ``pretrained``.

    The other fields override what clipeval finds out by itself: facts, and what decides its input.
    """

    name: str | None = None
    """What it is called on the command line and in results."""
    spec: str | None = None
    """A MODEL spec, as after ``-m``; or else ``arch`` with ``pretrained``."""
    arch: str | None = None
    """An architecture of open_clip."""
    pretrained: str | None = None
    """A tag of open_clip, a file, or ``hf://ORG/REPO/FILE``."""
    source: str | None = None
    """The data that it was trained on."""
    source_family: str | None = None
    """What laws tell apart: several sources may be one family."""
    unique_samples: float | None = Field(None, gt=0)
    """Different samples that it was trained on."""
    samples_seen: float | None = Field(None, gt=0)
    """Samples seen in training, each as often as it was."""
    samples_seen_from: Literal["measured", "tag", "epochs", "card", "paper"] | None = None
    """Where ``samples_seen`` is from."""
    preprocess: PreprocessEntry | None = None
    """How images are made into its input, where its file does not say it or is wrong."""
    image_size: Size | None = None
    """The same as ``preprocess.size``."""
    context_length: int | None = Field(None, ge=1, le=8192)
    """Tokens of a text."""


_Field = Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")]


class DatasetEntry(_Frozen):
    """A downstream data set. ``spec`` is a DATASET spec; the rest says how to read and score it."""

    spec: str
    """A DATASET spec, as after ``-d``; an entry that says nothing else may be this alone."""
    split: str = "test"
    """What is scored."""
    train_split: str | None = "train"
    """What probes are trained on."""
    val_split: str | None = None
    """What their settings are chosen on."""
    tasks: tuple[str, ...] | None = None
    """Tasks this set is meant for; None: all that its contents allow."""
    main_metric: str | None = None
    """The metric that stands for it in suites, report and gate; None: its task's."""
    n: int | None = Field(None, gt=0)
    """Expected number of samples in ``split``; another count is an error."""
    fingerprint: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Known content of ``split``, as the results table has it (``dataset_fingerprint``); other content is an error."""
    chance: float | None = Field(None, ge=0, le=1)
    """The accuracy of guessing."""
    prompts: str | None = None
    """Prompt set: ``default``, ``clip_benchmark``, or the path of a JSON file (``datasets/prompt_files.py``)."""
    language: str = "en"
    """Of class names and prompts."""
    languages: tuple[str, ...] = ()
    """Languages that the set is there in; none given: those of CLIP_benchmark's class names, as far as it has any."""
    revision: str | None = None
    """Branch, tag or commit of a repository."""
    image_key: str | None = None
    """Column or extension of the image; None: a usual one."""
    label_key: str | None = None
    """Column or extension of the label."""
    caption_key: str | None = None
    """Column or extension of the captions."""
    metadata: Annotated[tuple[_Field, ...], Field(min_length=1)] | None = None
    """Names of the numbers that the ``.npy`` beside each ``.cls`` holds, in their order."""
    choice_keys: tuple[str, ...] | None = None
    """Columns of the candidate captions of an image, that of the true one first."""
    unavailable: str | None = None
    """Why it cannot be measured."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""

    @field_validator("metadata")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value and len(set(value)) < len(value):
            raise ValueError("a field is named twice")
        return value


class SuiteEntry(_Frozen):
    """A named list of data sets, whose mean is a row of its own."""

    members: tuple[str, ...]
    """Its data sets; ``NAME@*`` is NAME in each of its languages (``Config.members``)."""
    metric: tuple[str, ...] = ()
    """The metrics that are averaged, each for itself; none given: each member's ``main_metric``."""
    title: str = ""
    """What it is called on the page."""

    @field_validator("metric", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one_metric(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class _TrainingEntry(_Frozen):
    """Settings of a task that trains on the training split."""

    shots: tuple[int, ...] = ()
    """k-shot measurements to run beside the full one."""
    full: bool = True
    """Whether to train on the whole training split."""
    seeds: int = Field(3, gt=0)
    """Draws per k-shot measurement."""


class LinearProbeEntry(_TrainingEntry):
    """Settings of the linear_probe task."""

    protocol: Literal["default", "cherti2023"] = "default"
    """How it is trained: logistic regression with C chosen on validation data, or as in the paper, by Adam, the best of
    nine settings on the test split."""


class KnnProbeEntry(_TrainingEntry):
    """Settings of the knn_probe task: how the ``k`` closest training images vote, ``default`` by their cosine as in
    DINO (Caron et al. 2021), ``majority`` alike."""

    protocol: Literal["default", "majority"] = "default"
    """How neighbours vote: by their cosine, or alike."""
    k: int = Field(20, gt=0, le=10_000)
    """Neighbours that vote."""


class FinetuneEntry(_TrainingEntry):
    """Settings of the finetune task."""

    protocol: str = "ilharco2022"
    """A preset of ``clipeval-train finetune``, and ``key=value`` settings that replace some of it."""


class TasksEntry(_Frozen):
    """Settings per task."""

    linear_probe: LinearProbeEntry = LinearProbeEntry()
    """Of the task ``probe``."""
    knn_probe: KnnProbeEntry = KnnProbeEntry()
    """Of the task ``knn``."""
    finetune: FinetuneEntry = FinetuneEntry()
    """Of the task ``finetune``."""


class RuleEntry(_Frozen):
    """What ``clipeval check`` demands of the cells that match. Of several rules that match, the first decides each key.

    ``dataset``, ``task`` and ``metric`` are globs; ``suite`` is a glob over suite names and matches their data sets and
    their averages.
    """

    dataset: str = "*"
    """Which data sets: a glob."""
    task: str = "*"
    """Which tasks: a glob."""
    metric: str = "*"
    """Which metrics: a glob."""
    suite: str | None = None
    """Which suites, their data sets and averages: a glob."""
    min: float | None = Field(None, strict=True, allow_inf_nan=False)
    """The lowest value allowed, in the metric's own unit: 0.6 is 60 %."""
    max_drop: float | None = Field(1.0, strict=True, ge=0, allow_inf_nan=False)
    """Points (hundredths) that another checkpoint may lose; null: any number."""
    tolerance: float = Field(0.1, strict=True, ge=0, allow_inf_nan=False)
    """Points by which the same checkpoint, measured again, may differ in either direction."""
    alpha: float = Field(0.05, strict=True, gt=0, lt=1)
    """The level of its tests: 0.05 is 95 % confidence."""
    complete: bool = Field(True, strict=True)
    """Whether every cell of the baseline has to be there."""
    same_version: bool = Field(True, strict=True)
    """Whether both have to be measured by the same version of the task."""
    on_trend: str | None = None
    """Where the law is fitted: ``true`` or ``baseline``, a published study (``cherti2023``), or a table's path."""

    @field_validator("on_trend", mode="before", json_schema_input_type=str | bool | None)
    @classmethod
    def _baseline_if_true(cls, value: Any) -> Any:
        return {True: "baseline", False: None}[value] if isinstance(value, bool) else value


class Config(_Frozen):
    """Everything benchmarks.yaml can say."""

    models: tuple[ModelEntry | str, ...] = ()
    """Checkpoints: MODEL specs, or mappings that say more. What ``run`` measures without ``-m``."""
    zoos: dict[str, tuple[ModelEntry | str, ...]] = {}
    """Names for several of them."""
    datasets: dict[str, DatasetEntry] = {}
    """Data sets by name. Those of your file are what ``run`` measures without ``-d``."""
    suites: dict[str, SuiteEntry] = {}
    """Names for several data sets, whose mean is a row; a list of them, or a mapping that says more."""
    tasks: TasksEntry = TasksEntry()
    """Settings of tasks."""
    rules: tuple[RuleEntry, ...] = ()
    """What ``check`` demands; of several that match a cell the first decides each key."""
    own_datasets: tuple[str, ...] = Field((), exclude=True)
    """Names of the data sets that the user's own file defines: what ``run`` measures when no -d is given."""
    path: str = Field(PACKAGED, exclude=True)

    def dataset(self, name: str) -> DatasetEntry | None:
        """The entry of a data set, and of ``NAME@LANGUAGE`` that of NAME in a language; None where there is none."""
        base, _, language = name.rpartition("@")
        if name in self.datasets or not language or base not in self.datasets:
            return self.datasets.get(name)
        return self.datasets[base].model_copy(update={"language": language, "fingerprint": None})

    @property
    def chances(self) -> dict[str, float]:
        """The accuracy of guessing on the data sets that say it."""
        return {name: entry.chance for name, entry in self.datasets.items() if entry.chance}

    def members(self, suite: str) -> tuple[str, ...]:
        """The names of a suite's data sets."""
        found: list[str] = []
        for name in self.suites[suite].members:
            base = name.removesuffix("@*")
            found += [name] if base == name else (f"{base}@{language}" for language in self._languages(base))
        return tuple(found)

    def _languages(self, name: str) -> tuple[str, ...]:
        """Those of an entry, or of the packaged one that it replaces."""
        entries = [config.datasets[name] for config in (self, packaged()) if name in config.datasets]
        return next((entry.languages for entry in entries if entry.languages), ("*",))

    @field_validator("datasets", mode="before", json_schema_input_type=dict[str, DatasetEntry | str])
    @classmethod
    def _one_line_entries(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: {"spec": entry} if isinstance(entry, str) else entry for name, entry in value.items()}
        return value

    @field_validator("suites", mode="before", json_schema_input_type=dict[str, SuiteEntry | list[str]])
    @classmethod
    def _list_suites(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: {"members": entry} if isinstance(entry, list) else entry for name, entry in value.items()}
        return value


def load(path: str | Path | None = None) -> Config:
    """The packaged configuration, with the user's file on top.

    ``path`` None takes ``./benchmarks.yaml`` where there is one. Entries of the user's file replace packaged ones of
    the same name; its ``models`` list is its own. Raises UsageError that names the file and the path in it.
    """
    base = packaged()
    if path is None:
        path = Path(PACKAGED)
        if not path.exists():
            return base
    path = expand(path)
    user = _parse(read_yaml(path), str(path))
    return base.model_copy(
        update={
            "models": user.models,
            "zoos": {**base.zoos, **user.zoos},
            "datasets": {**base.datasets, **user.datasets},
            "suites": {**base.suites, **user.suites},
            "tasks": user.tasks,
            "rules": user.rules,
            "own_datasets": tuple(name for name, entry in user.datasets.items() if base.datasets.get(name) != entry),
            "path": str(path),
        }
    )


@cache
def packaged() -> Config:
    """The configuration that comes with clipeval, without any file of the user."""
    file = resources.files("clipeval") / PACKAGED
    if not file.is_file():  # a source checkout keeps the file at its top level
        file = Path(__file__).parent.parent / PACKAGED
    return _parse(yaml.load(file.read_text("utf-8"), Loader=Loader), PACKAGED)


def _parse(document: Any, path: str) -> Config:
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a mapping with the keys {', '.join(user_keys(Config))}.")
    for hidden in ("own_datasets", "path"):
        if hidden in document:
            raise UsageError(f"{path}: {hidden}: unknown key. Keys here: {', '.join(user_keys(Config))}.")
    try:
        return Config.model_validate({**document, "path": path})
    except ValidationError as error:
        raise UsageError(explain(error, path, Config)) from error
