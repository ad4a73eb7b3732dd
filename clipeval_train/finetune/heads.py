"""Classifiers on the normalised image embedding: what they start from, and how they are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clipeval.datasets.base import Dataset
from clipeval.datasets.subset import Subset
from clipeval.embeddings import images, pixels, texts
from clipeval.embeddings.images import LoaderSettings
from clipeval.errors import DataError
from clipeval.metrics import normalise, require_finite
from clipeval.models.encoder import OpenClipEncoder
from clipeval.tasks import accuracy, linear_probe, zeroshot_classification
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.base import TaskResult
from clipeval_train.finetune.config import Recipe
from clipeval_train.finetune.data import LabelledSet, labels_of

_BATCH_SIZE = 64


class Head(torch.nn.Module):
    """``logits = scale * weight @ embedding / |embedding| + bias``; ``classes[k]`` is the label of column k."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, scale: float, classes: np.ndarray, train: bool
    ) -> None:
        """``weight`` ``[K, D]``, ``bias`` ``[K]``. A head to ``train`` has the scale in its weights, as in WiSE-FT."""
        super().__init__()
        self.classes = classes
        self.scale = 1.0 if train else scale
        self.weight = torch.nn.Parameter(weight.float() * scale if train else weight.float(), requires_grad=train)
        self.bias = torch.nn.Parameter(bias.float(), requires_grad=train)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """``[n, D]`` of any precision -> logits ``[n, K]`` float32."""
        unit = torch.nn.functional.normalize(embeddings.float(), dim=-1)
        return self.scale * unit @ self.weight.T + self.bias

    def columns(self, labels: np.ndarray) -> np.ndarray:
        """``[n]``: the column of each label."""
        return np.searchsorted(self.classes, labels)

    def score(self, embeddings: np.ndarray, dataset: Dataset) -> TaskResult:
        """acc1, acc5 and mean_per_class_recall of ``embeddings`` ``[n, D]``, as ``clipeval run`` scores them."""
        require_finite(embeddings, dataset.ids, "image")
        weight, bias = (tensor.detach().cpu().numpy() for tensor in (self.weight, self.bias))
        blocks = accuracy.linear_scores(normalise(embeddings), weight, bias if bias.any() else None)
        return accuracy.score(blocks, self.classes, labels_of(dataset), dataset.ids)

    def content(self, weight: torch.Tensor, bias: torch.Tensor) -> dict[str, Any]:
        """The head with this weight and bias, as plain values for a checkpoint."""
        values = {"weight": weight, "bias": bias, "scale": self.scale, "classes": self.classes.tolist()}
        return values | {"trained": self.weight.requires_grad}

    @classmethod
    def restored(cls, content: dict[str, Any]) -> Head:
        """The head that ``content`` describes."""
        classes = np.array(content["classes"])
        return cls(content["weight"], content["bias"], content["scale"], classes, content["trained"])


def initial(encoder: OpenClipEncoder, dataset: LabelledSet, recipe: Recipe, seed: int, workers: int) -> Head:
    """The head that ``recipe.head`` asks for. Raises MeasureError where the data set or the checkpoint forbids it."""
    if recipe.head == "zeroshot":
        vectors = class_vectors(encoder, dataset.train)
        bias = torch.zeros(len(vectors))
        scale = encoder.model.logit_scale.exp().item()
        return Head(torch.from_numpy(vectors), bias, scale, np.arange(len(vectors)), recipe.train_head)
    if recipe.head == "probe":
        return _probe(encoder, dataset, recipe, workers)
    prompts, labels = dataset.train.prompts, labels_of(dataset.train)
    classes = np.arange(len(prompts.classes)) if prompts else np.unique(labels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        linear = torch.nn.Linear(encoder.embed_dim, len(classes))
    return Head(linear.weight.detach(), linear.bias.detach(), 1.0, classes, recipe.train_head)


def _probe(encoder: OpenClipEncoder, dataset: LabelledSet, recipe: Recipe, workers: int) -> Head:
    """The classifier of clipeval's probe on what is trained on; validation samples stay unseen for later choices."""
    settings = LoaderSettings(_BATCH_SIZE, workers)
    train = dataset.train
    whole, rows = _whole(train)
    embeddings = images.embed(encoder, whole, rows, settings, _ignore)
    on_device = embeddings if encoder.device == "cpu" else torch.from_numpy(embeddings).to(encoder.device)
    classifier = linear_probe.train_classifier(Labelled(on_device, labels_of(train), train.ids))
    weight, bias = (torch.as_tensor(array).cpu() for array in (classifier.weights, classifier.bias))
    return Head(weight, bias, 1.0, classifier.classes, recipe.train_head)


def class_vectors(encoder: OpenClipEncoder, dataset: Dataset) -> np.ndarray:
    """``[K, D]``: zero-shot classification's unit vector per class. Raises DataError without class names."""
    if dataset.prompts is None:
        raise DataError(f"{dataset.name}: it has no class names, which a zero-shot head is made of. Use head: probe.")
    unique = zeroshot_classification.texts(dataset)
    store = texts.TextStore(encoder.identity.text_key(encoder.precision), encoder.embed_dim)
    texts.embed(encoder, store, unique, _BATCH_SIZE, _ignore)
    position = {prompt: index for index, prompt in enumerate(unique)}
    prompt_index = [np.array([position[prompt] for prompt in prompts]) for prompts in dataset.prompts.texts()]
    return zeroshot_classification.class_vectors(store.get(unique), prompt_index)


def embed(encoder: OpenClipEncoder, dataset: Dataset, rows: np.ndarray, workers: int) -> np.ndarray:
    """Embeddings ``[len(rows), D]`` by the model's present weights: pixels come from clipeval's cache, embeddings do
    not. Raises DataError for an image that cannot be decoded."""
    whole, of_whole = _whole(dataset)
    with pixels.loaded(whole, encoder, of_whole[rows], LoaderSettings(_BATCH_SIZE, workers)) as batches:
        encoded = [encoder.encode_images(batch).cpu().numpy() for _, batch, _ in batches]
    return np.concatenate(encoded) if encoded else np.empty((0, encoder.embed_dim), np.float32)


def _whole(dataset: Dataset) -> tuple[Dataset, np.ndarray]:
    """A data set and rows of it: caches are kept for whole splits."""
    if isinstance(dataset, Subset):
        return dataset.whole, dataset.indices
    return dataset, np.arange(len(dataset))


def _ignore(items: int, stored: int) -> None:
    pass
