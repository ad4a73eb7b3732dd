"""Fine-tuning: the image tower and a classifier are trained end to end on the training split, then scored on test.

The recipe is the configuration's ``tasks.finetune.protocol``: a preset of ``clipeval-train finetune`` and, behind it,
``key=value`` settings of the same names, for example ``ilharco2022 iterations=500 lr=3e-5``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipeval.datasets.draws import shot_indices
from clipeval.datasets.subset import Subset
from clipeval.errors import DataError, MetricError
from clipeval.tasks import zeroshot_classification
from clipeval.tasks.base import Inputs, TaskResult

if TYPE_CHECKING:
    from clipeval.config import FinetuneEntry
    from clipeval.datasets.base import Dataset

_WHERE = "tasks.finetune.protocol"


def texts(dataset: Dataset) -> list[str]:
    """The prompts of all classes, of which a zero-shot classifier to start from is made."""
    return zeroshot_classification.texts(dataset) if dataset.prompts else []


def protocol(settings: FinetuneEntry) -> str:
    """The recipe as it stands in the results table. Raises UsageError where it is none."""
    from clipeval_train.finetune.config import parse_recipe

    parse_recipe(settings.protocol, _WHERE)
    return " ".join(settings.protocol.split())


def run(inputs: Inputs) -> TaskResult:
    """Fine-tune a copy of the checkpoint on ``train`` and score ``inputs.dataset``. Raises MeasureError.

    The notes hold the whole recipe and the accuracy before the first step. With shots, training sees the drawn images
    of the k-shot linear probe.
    """
    from clipeval_train.finetune.classification import finetune_copy
    from clipeval_train.finetune.config import parse_recipe
    from clipeval_train.finetune.data import LabelledSet

    name, train = inputs.dataset.name, inputs.split("train")
    if train is None:
        raise DataError(f"{name}: it has no training split, which fine-tuning needs.")
    samples = train.dataset
    if inputs.shots is not None:
        if samples.labels is None or samples.labels.ndim != 1:
            raise MetricError(f"{name} ({samples.split}): fine-tuning needs one label per image.")
        classes = samples.prompts.classes if samples.prompts else ()
        samples = Subset(samples, shot_indices(samples.labels, inputs.shots, inputs.seed, classes))
    recipe = parse_recipe(inputs.protocol, _WHERE)
    labelled = LabelledSet(name, samples, inputs.dataset)
    inputs.work("fine-tuning")
    before, after = finetune_copy(inputs.encoder, labelled, recipe, seed=inputs.seed, workers=inputs.workers)
    notes = {
        "acc1_before": before.metrics[0].value,
        "train_samples": len(samples),
        "recipe": recipe.model_dump(mode="json"),
    }
    return TaskResult(after.metrics, after.samples, after.notes | notes)
