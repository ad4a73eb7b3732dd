"""What is decoded is what the fingerprint is of: an image that changes after the data set was opened is an error."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shard_writer as writer
from PIL import Image
from test_clip_benchmark import imagenet_a

from clipeval import datasets
from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.errors import DataError

hf = pytest.importorskip("datasets")
hf.disable_progress_bars()


def bmp(seed: int) -> bytes:
    """A picture of a size in bytes that does not depend on its content."""
    return writer.encoded(writer.picture(seed), "bmp")


def opened(spec: str, split: str | None = None) -> Dataset:
    return datasets.open_dataset("animals", DatasetEntry(spec=spec), split)


def folder(root: Path) -> tuple[str, list[Path], str]:
    for number in range(3):
        path = root / "test" / "fox" / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bmp(number))
    return f"folder:{root}", [root / "test" / "fox" / "1.bmp"], "fox/1.bmp"


def shards(root: Path) -> tuple[str, list[Path], str]:
    content = [(f"{i}.{kind}", data) for i in range(3) for kind, data in (("png", bmp(i)), ("cls", b"1"))]
    writer.write_split(root, "test", [content])
    return f"wds:{root}", [root / "test" / "0.tar"], "0/1"


def parquet(root: Path) -> tuple[str, list[Path], str]:
    root.mkdir()
    cells = [{"bytes": bmp(number), "path": None} for number in range(3)]
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["a", "b"])})
    hf.Dataset.from_dict({"image": cells, "label": [0, 1, 0]}, features=features).to_parquet(str(root / "t.parquet"))
    pq.write_table(pq.read_table(root / "t.parquet"), root / "t.parquet", compression="none", write_statistics=False)
    return f"hf:{root}/t.parquet", [root / "t.parquet"], "1"


def image_folder(root: Path) -> tuple[str, list[Path], str]:
    folder(root)
    (root / "test" / "cat").mkdir()
    (root / "test" / "cat" / "0.bmp").write_bytes(bmp(9))
    return f"hf:{root}", [root / "test" / "fox" / "1.bmp"], "2"


def native(root: Path) -> tuple[str, list[Path], str]:
    imagenet_a(root / "imagenet-a")
    path = sorted((root / "imagenet-a").rglob("*.jpg"))[1]
    path.write_bytes(bmp(1))
    return "clip_benchmark:imagenet-a", [path], path.relative_to(root / "imagenet-a").as_posix()


@pytest.mark.parametrize("make", [folder, shards, parquet, image_folder, native])
def test_an_image_that_changes_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], tuple[str, list[Path], str]]
) -> None:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLIPEVAL_DATA", str(tmp_path / "data"))
    spec, files, sample = make(tmp_path / "data")
    dataset = pickle.loads(pickle.dumps(opened(spec)))  # as the decoding processes have it
    index = list(dataset.ids).index(sample)
    expected = np.asarray(dataset.image(index).convert("RGB")).copy()
    assert np.array_equal(expected, np.asarray(Image.open(io.BytesIO(bmp(1))).convert("RGB")))
    assert files
    for path in files:
        data = path.read_bytes()
        assert data.count(bmp(1)) == 1
        path.write_bytes(data.replace(bmp(1), bmp(77)))
    dataset = pickle.loads(pickle.dumps(dataset))
    with pytest.raises(DataError, match=rf"^animals: sample {sample}: the image changed during the run\. Wait until"):
        dataset.image(index)
    dataset.image(0)


def test_drawings_are_compared_too() -> None:
    dataset = opened("builtin:icons/codicon@20")
    assert isinstance(dataset.image(0), Image.Image)
    other = dataclasses.replace(dataset.read, digests=["0" * 64] * 20)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="the image changed during the run"):
        other(0)


def test_a_shard_that_changes_while_it_is_indexed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipeval.datasets.adapters import tar_index

    spec, [path], _ = shards(tmp_path / "data")
    original = tar_index._read

    def meanwhile(shard: Path) -> object:
        path.write_bytes(path.read_bytes() + bytes(512))
        return original(shard)

    monkeypatch.setattr(tar_index, "_read", meanwhile)
    with pytest.raises(DataError, match=r"0\.tar: cannot read the shard: it changed while it was read"):
        opened(spec)


GOLDEN = {
    "digits": "d375729bc680949b6042454e9ec180aace2231026d3a66aef37cdfa0856b0d05",
    "digits train": "1e07d1d3ce9ae182f944fe9d7b785c7020dd262999f9408d65cfa507c7ec3045",
    "folder": "3dd9efa8d91240ae861d7a87ae824789f6cadaa5032e51fcb271a5cf1cad33ec",
    "classes": "9c3f331e58289d0d9a3f7b9e39ad00ab4cd86d5aa229545500fa7b391877f346",
    "captions": "8f6f5797146be7ad75fbfc411d51093ce390c7329b31669f4b31b402b20196a3",
    "multilabel": "904bc1856b56a163d13c29594568a39ee0189c491ea0b2f7be28c7f7c32e9504",
    "table": "e4ca4781c73de5d14fa56e90b8a37f96f470be1b58636a2b2103191f8fd052ba",
}
"""As the code had them before digests were remembered under other keys: what was measured stays known."""


def test_fingerprints_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a data set decodes no image, so any bytes will do, and these are the same everywhere."""
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    pictures = [f"picture {number}".encode() for number in range(4)]
    for split, label, number in (("test", "fox", 0), ("test", "wolf", 1), ("test", "wolf", 2), ("train", "fox", 3)):
        path = tmp_path / "folder" / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[number])
    second = {"classes": ("cls", [b"3", b"0\n", b"7"]), "captions": ("txt", [b"a\nb", b"c", "dé".encode()])}
    labels = []
    for values in ([0, 1, 1], [1, 0, 0], [0, 0, 1]):
        buffer = io.BytesIO()
        np.save(buffer, np.array(values))
        labels.append(buffer.getvalue())
    second["multilabel"] = ("npy", labels)
    for name, (kind, files) in second.items():
        content = [(f"{i}.{k}", data) for i in range(3) for k, data in (("jpg", pictures[i]), (kind, files[i]))]
        writer.write_split(tmp_path / name, "test", [content[:4], content[4:]])
    cells = [{"bytes": bmp(number), "path": None} for number in range(4)]
    columns = {"image": cells, "label": [1, 0, 1, 1], "caption": ["a", "b", "c", "dé"]}
    kinds = {"image": hf.Image(), "label": hf.ClassLabel(names=["x", "y"]), "caption": hf.Value("string")}
    hf.Dataset.from_dict(columns, features=hf.Features(kinds)).to_parquet(str(tmp_path / "t.parquet"))
    specs = {name: f"wds:{tmp_path}/{name}" for name in second}
    specs |= {"folder": f"folder:{tmp_path}/folder", "table": f"hf:{tmp_path}/t.parquet"}
    found = {name: opened(spec).fingerprint for name, spec in specs.items()}
    found |= {
        "digits": opened("builtin:digits").fingerprint,
        "digits train": opened("builtin:digits", "train").fingerprint,
    }
    assert found == GOLDEN
    total = hashlib.sha256(b"".join(hashlib.sha256(data).hexdigest().encode() for data in pictures[:3]))
    for part in ("[[3], [0, 1, 1]]", "null", "null"):  # the definition, for a folder
        total.update(hashlib.sha256(part.encode()).hexdigest().encode())
    assert found["folder"] == total.hexdigest()
