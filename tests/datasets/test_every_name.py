"""Every name of CLIP_benchmark is in the catalogue, and what can be measured is measured as CLIP_benchmark does.

The oracle are its own builder and metrics on the same small copies."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import stand_ins
import torch
from clip_benchmark.datasets.builder import build_dataset, get_dataset_collate_fn
from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval
from helpers import tiny_checkpoint
from sklearn.metrics import balanced_accuracy_score

from clipeval import config, models
from clipeval.evaluation import run as runner
from clipeval.evaluation.request import Options, Request

pytestmark = [
    pytest.mark.filterwarnings("ignore:split argument ignored"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:WebDataset"),
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true"),
]

README = {"cifar10", "babel_imagenet", *stand_ins.LANGUAGES, "winoground"}
README |= {f"sugar_crepe/{task}" for task in stand_ins.SUGAR_CREPE}
BUILDER = {*stand_ins.NATIVE, "imagenet-w", "food101", "pcam"}
UNAVAILABLE = {
    "imagenet-w",
    *(f"vtab/{name}" for name in ("cars", "cub", "food101", "inaturalist", "sun397")),
    *(f"vtab/{name}" for name in ("dsprites_label_shape", "dsprites_label_scale")),
    *(f"vtab/{name}" for name in ("smallnorb_label_category", "smallnorb_label_lighting")),
}
IN_LANGUAGES = [f"{name}@{code}" for name, (_, codes) in stand_ins.LANGUAGES.items() for code in codes]
LABELLED = [name for name in stand_ins.WEBDATASETS if name not in stand_ins.CAPTIONED] + [*stand_ins.NATIVE]


def test_every_name_is_in_the_catalogue_and_says_if_it_cannot_be_measured() -> None:
    assert len(stand_ins.WEBDATASETS) == 41
    known = config.packaged().datasets
    assert {*stand_ins.WEBDATASETS, *README, *BUILDER, *UNAVAILABLE} <= set(known)
    assert {name for name, entry in known.items() if entry.unavailable} == UNAVAILABLE
    for name in stand_ins.WEBDATASETS:
        assert known[name].spec == f"clip_benchmark:wds/{name}"
    for name, (_, codes) in stand_ins.LANGUAGES.items():
        module = importlib.import_module(f"clip_benchmark.datasets.{MODULES.get(name, name)}")
        assert sorted(known[name].languages) == sorted(module.SUPPORTED_LANGUAGES)
        assert set(codes) <= set(known[name].languages)


MODULES = {"multilingual_mscoco_captions": "multilingual_mscoco", "flickr30k-200": "flickr30k_200"}


@functools.cache
def folder_of(base: Path) -> Path:
    """All stand-ins below one folder."""
    for name in stand_ins.WEBDATASETS:
        stand_ins.webdataset(base, name)
    for name, write in stand_ins.NATIVE.items():
        write(base / name)
    for name in stand_ins.LANGUAGES:
        stand_ins.multilingual(base / name, name)
    stand_ins.sugar_crepe(base / "sugar_crepe")
    sides = {f"image_{side}": [2 * row + side for row in range(7)] for side in (0, 1)}
    texts = {f"caption_{side}": [stand_ins.caption(11 * row + side) for row in range(7)] for side in (0, 1)}
    stand_ins.table(base / "winoground/data/test-0.parquet", sides, texts)
    return base


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, pd.DataFrame]:
    """The stand-ins, a checkpoint, and the table of one run over all of them."""
    root = tmp_path_factory.mktemp("all")
    data, checkpoint = folder_of(root / "data"), tiny_checkpoint(root / "a.pt")
    packaged = config.packaged()
    entries = {name: entry.model_copy(update={"n": None}) for name, entry in packaged.datasets.items()}
    settings = packaged.model_copy(update={"datasets": entries})
    names = [*stand_ins.WEBDATASETS, *stand_ins.NATIVE, *IN_LANGUAGES, "xtd200", "imagenet1k@it"]
    names += ["babel_imagenet@sw", "babel_imagenet@te", "sugar_crepe", "winoground", "imagenet-w", "vtab/cub", "pcam"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_DATA", str(data))
        patch.setenv("CLIPEVAL_CACHE", str(root / "cache"))
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        patch.setattr("torchvision.datasets.flowers102.Flowers102._check_integrity", lambda _: True)
        options = Options(out=root / "out", workers=0, offline=True)
        request = Request(config=settings, options=options, models=[str(checkpoint)], datasets=names)
        runner.execute(request, quiet=True)
    return data, checkpoint, pd.read_parquet(root / "out/results.parquet")


class Peer:
    """Our encoder in the place of CLIP_benchmark's model, tokenizer and transform: exact uint8 pixels for images."""

    def __init__(self, checkpoint: Path) -> None:
        [spec] = models.resolve([str(checkpoint)], config.packaged())
        self._encoder: Any = models.load(spec, device="cpu", precision="fp32", offline=True)

    def transform(self, image: Any) -> torch.Tensor:
        return torch.from_numpy(self._encoder.pixels(image.convert("RGB")).copy())

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return self._encoder.encode_images(images)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._encoder.encode_tokens(tokens)

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return self._encoder.tokenize(texts)

    def loader(self, dataset: Any, name: str) -> Any:
        return torch.utils.data.DataLoader(dataset, batch_size=32, collate_fn=get_dataset_collate_fn(name))


@pytest.fixture(scope="module")
def peer(measured: tuple[Path, Path, pd.DataFrame]) -> Peer:
    return Peer(measured[1])


def found(measured: tuple[Path, Path, pd.DataFrame], name: str, task: str) -> dict[str, float]:
    table = measured[2]
    rows = table[(table.dataset == name) & (table.task == task)]
    assert set(rows.status) <= {"ok", "skipped"}, (name, rows.error.tolist())
    return dict(zip(rows.metric, rows.value, strict=True))


def of_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """acc1, acc5 and balanced accuracy by a plain sort."""
    order = np.argsort(-logits, axis=1, kind="stable")
    top5 = (order[:, :5] == labels[:, None]).any(axis=1).mean() if logits.shape[1] >= 5 else np.nan
    balanced = balanced_accuracy_score(labels, order[:, 0])
    return {
        "acc1": float((order[:, 0] == labels).mean()),
        "acc5": float(top5),
        "mean_per_class_recall": float(balanced),
    }


def theirs(data: Path, name: str, peer: Peer, **more: Any) -> Any:
    """CLIP_benchmark's data set, of the place where ours was read."""
    wds = name in stand_ins.WEBDATASETS
    root = data / (f"wds_{name.replace('/', '-')}" if wds else name.split("/")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        patch.setattr("torchvision.datasets.flowers102.Flowers102._check_integrity", lambda _: True)
        full = f"wds/{name}" if wds else name
        return build_dataset(full, root=str(root), transform=peer.transform, download=False, **more)


@pytest.mark.parametrize("name", LABELLED)
def test_classification(measured: tuple[Path, Path, pd.DataFrame], peer: Peer, name: str) -> None:
    source = theirs(measured[0], name, peer)
    ours = found(measured, name, "zeroshot_classification")
    classes = source.classes
    if name in ("imagenet1k", "imagenet1k-unverified"):  # of which we correct two names
        classes = list(classes)
        classes[744], classes[836] = "projectile", "sunglass"
    classifier = zeroshot_classification.zero_shot_classifier(peer, peer, classes, source.templates, "cpu", amp=False)
    loader = peer.loader(source, name)
    logits, labels = zeroshot_classification.run_classification(peer, classifier, loader, "cpu", amp=False)
    if name == "voc2007_multilabel":
        per_class = zeroshot_classification.average_precision_per_class(logits, labels)
        assert ours == {"mean_average_precision": pytest.approx(float(per_class.mean()), abs=1e-6)}
    else:
        assert ours == pytest.approx(of_scores(logits.numpy(), labels.numpy()), abs=1e-12, nan_ok=True)


def of_retrieval(source: Any, peer: Peer) -> dict[str, float]:
    loader = peer.loader(source, "flickr8k")
    return zeroshot_retrieval.evaluate(peer, loader, peer, "cpu", amp=False, recall_k_list=[1, 5, 10])


@pytest.mark.parametrize("name", [*stand_ins.CAPTIONED, *IN_LANGUAGES])
def test_retrieval(measured: tuple[Path, Path, pd.DataFrame], peer: Peer, name: str) -> None:
    base, _, language = name.partition("@")
    source = theirs(measured[0], base, peer, task="zeroshot_retrieval", language=language or "en")
    assert found(measured, name, "zeroshot_retrieval") == pytest.approx(of_retrieval(source, peer), abs=1e-6)


def test_english_is_called_otherwise_in_some_sets(measured: tuple[Path, Path, pd.DataFrame]) -> None:
    english = found(measured, "xtd200@eng_Latn", "zeroshot_retrieval")
    assert found(measured, "xtd200", "zeroshot_retrieval") == english
    assert found(measured, "xtd200@zul_Latn", "zeroshot_retrieval") != english


@pytest.mark.parametrize("name", [f"sugar_crepe/{task}" for task in stand_ins.SUGAR_CREPE])
def test_sugar_crepe(measured: tuple[Path, Path, pd.DataFrame], peer: Peer, name: str) -> None:
    source = theirs(measured[0], name, peer, task="image_caption_selection")
    expected = image_caption_selection.evaluate(peer, peer.loader(source, name), peer, "cpu", amp=False)
    ours = found(measured, name, "image_caption_selection")
    assert ours == {"text_acc": pytest.approx(expected["text_acc"])}


def test_the_mean_of_sugar_crepe(measured: tuple[Path, Path, pd.DataFrame]) -> None:
    each = [found(measured, f"sugar_crepe/{t}", "image_caption_selection")["text_acc"] for t in stand_ins.SUGAR_CREPE]
    assert found(measured, "sugar_crepe", "image_caption_selection") == {"text_acc": pytest.approx(np.mean(each))}


def test_winoground(measured: tuple[Path, Path, pd.DataFrame], peer: Peer) -> None:
    import datasets as hf

    rows = hf.load_dataset("parquet", data_files=str(measured[0] / "winoground/data/test-0.parquet"), split="train")
    items = [
        (
            torch.stack([peer.transform(row["image_0"]), peer.transform(row["image_1"])]),
            [row["caption_0"], row["caption_1"]],
        )
        for row in rows
    ]
    expected = image_caption_selection.evaluate(peer, peer.loader(items, "winoground"), peer, "cpu", amp=False)
    ours = found(measured, "winoground", "image_caption_selection")
    assert ours == pytest.approx({name: expected[name] for name in ("text_acc", "image_acc", "acc")})


def copy_of_imagenet(data: Path, peer: Peer) -> tuple[torch.Tensor, np.ndarray]:
    items = list(theirs(data, "imagenet1k", peer))
    images = torch.nn.functional.normalize(peer.encode_image(torch.stack([image for image, _ in items])), dim=-1)
    return images, np.array([label for _, label in items])


@pytest.mark.parametrize("code", ["sw", "te"])
def test_babel_imagenet_of_the_copy_of_imagenet(
    measured: tuple[Path, Path, pd.DataFrame], peer: Peer, code: str
) -> None:
    """The classes that the language has names for, renumbered, with its prompts."""
    folder = Path(build_dataset.__code__.co_filename).parent
    index, classes = json.loads((folder / "babel_imagenet.json").read_text())[code.upper()]
    templates = json.loads((folder / "nllb_dist13b_prompts.json").read_text())[code.upper()]
    templates = [template.replace("{}", "{c}") for template in templates]
    images, labels = copy_of_imagenet(measured[0], peer)
    kept = np.isin(labels, index)
    assert 3 < kept.sum() < len(labels)
    classifier = zeroshot_classification.zero_shot_classifier(peer, peer, classes, templates, "cpu", amp=False)
    expected = of_scores((images @ classifier).numpy()[kept], np.array([index.index(label) for label in labels[kept]]))
    assert found(measured, f"babel_imagenet@{code}", "zeroshot_classification") == pytest.approx(expected)


def test_a_language_of_imagenet(measured: tuple[Path, Path, pd.DataFrame], peer: Peer) -> None:
    folder = Path(build_dataset.__code__.co_filename).parent
    classes = json.loads((folder / "it_classnames.json").read_text())["imagenet1k"]
    templates = json.loads((folder / "it_zeroshot_classification_templates.json").read_text())["imagenet1k"]
    images, labels = copy_of_imagenet(measured[0], peer)
    classifier = zeroshot_classification.zero_shot_classifier(peer, peer, classes, templates, "cpu", amp=False)
    expected = of_scores((images @ classifier).numpy(), labels)
    assert found(measured, "imagenet1k@it", "zeroshot_classification") == pytest.approx(expected)


def test_what_cannot_be_measured_is_a_failed_row_with_the_reason(measured: tuple[Path, Path, pd.DataFrame]) -> None:
    rows = measured[2].set_index("dataset")
    for name, reason in (("imagenet-w", "draws its watermark"), ("vtab/cub", "TensorFlow Datasets")):
        assert rows.loc[name, "status"] == "failed"
        assert reason in rows.loc[name, "error"]
    if importlib.util.find_spec("h5py") is None:
        assert "h5py" in rows.loc["pcam", "error"] or "there is no" in rows.loc["pcam", "error"]


def test_progress_says_what_several_labels_reach(tmp_path: Path, command: Any) -> None:
    """There is no top-1 of images with several classes."""
    stand_ins.webdataset(tmp_path, "voc2007_multilabel")
    (folder,) = (path.parent for path in tmp_path.rglob("dataset_type.txt"))
    words = ["-m", tiny_checkpoint(tmp_path / "m.pt"), "-d", f"wds:{folder}", "-t", "classification", "--workers", "0"]
    code, _, said = command("clipeval", "run", *words, "-o", tmp_path / "out")
    assert code == 0, said
    (row,) = pd.read_csv(tmp_path / "out" / "results.csv").to_dict("records")
    assert (row["metric"], row["ci_low"] <= row["value"] <= row["ci_high"]) == ("mean_average_precision", True)
    assert f"mAP {100 * row['value']:.1f} %" in said
