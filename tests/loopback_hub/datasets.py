"""What data set repositories hold: scikit-learn's digits as webdatasets and as Parquet, in the layouts of real ones."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = ("a photo of the number {c}.", "the digit {c}", "a handwritten {c}.")
SIDE = 32


@dataclass(frozen=True)
class Digits:
    """Some of scikit-learn's handwritten digits, enlarged to 32 x 32 grey pixels, as PNG files, with labels 0 to 9."""

    images: list[bytes]
    labels: list[int]

    def picture(self, index: int) -> Image.Image:
        """The image of one sample."""
        return Image.open(io.BytesIO(self.images[index])).convert("RGB")

    def caption(self, index: int) -> str:
        """Two captions, one per line."""
        return f"a {CLASSES[self.labels[index]]}\nhandwriting number {index}"


def digits(count: int, start: int = 0) -> Digits:
    """``count`` samples from the ``start``-th on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = []
    for ink in data.images[start : start + count]:
        picture = Image.fromarray((ink * 15).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        images.append(buffer.getvalue())
    return Digits(images, [int(label) for label in data.target[start : start + count]])


def tar(members: Sequence[tuple[str, bytes]]) -> bytes:
    """A tar file, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def npy(values: Sequence[float]) -> bytes:
    """A NumPy file of one row of metadata, as beside the samples of WILDS and the fairness sets."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(values))
    return buffer.getvalue()


def webdataset(
    data: Digits, shards: int = 2, split: str = "test", *, metadata: bool = False, captions: bool = False
) -> dict[str, bytes]:
    """``clip-benchmark/wds_NAME``, and with ``metadata`` ``djghosh/wds_NAME_test`` of WILDS: .cls and .npy.

    With ``captions`` a retrieval set: dataset_type.txt, .txt members, no class names.
    """
    files: dict[str, bytes] = {f"{split}/nshards.txt": str(shards).encode()}
    if captions:
        files["dataset_type.txt"] = b"retrieval"
    else:
        files["classnames.txt"] = "\n".join(CLASSES).encode()
        files["zeroshot_classification_templates.txt"] = "\n".join(TEMPLATES).encode()
    for shard in range(shards):
        members: list[tuple[str, bytes]] = []
        for index in range(shard * len(data.labels) // shards, (shard + 1) * len(data.labels) // shards):
            key = f"s{index:07d}"
            members.append((f"{key}.png", data.images[index]))
            if captions:
                members.append((f"{key}.txt", data.caption(index).encode()))
            else:
                members.append((f"{key}.cls", str(data.labels[index]).encode()))
            if metadata:
                members.append((f"{key}.npy", npy([index % 3, 2002 + index % 5])))
        files[f"{split}/{shard}.tar"] = tar(members)
    return files


def parquet(configs: dict[str, Digits], parts: int = 2, split: str = "test") -> dict[str, bytes]:
    """A Parquet data set as ``datasets`` pushes it: CONFIG/SPLIT-00000-of-00002.parquet and a README that lists them.

    The first of ``configs`` is the default one.
    """
    files: dict[str, bytes] = {".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"}
    infos, listed = [], []
    for number, (config, data) in enumerate(configs.items()):
        sizes = 0
        for part in range(parts):
            rows = range(part * len(data.labels) // parts, (part + 1) * len(data.labels) // parts)
            path = f"{config}/{split}-{part:05d}-of-{parts:05d}.parquet"
            files[path] = _table([data.images[i] for i in rows], [data.labels[i] for i in rows])
            sizes += len(files[path])
        names = "".join(f"          '{index}': {name}\n" for index, name in enumerate(CLASSES))
        infos.append(
            f"- config_name: {config}\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
            f"      class_label:\n        names:\n{names}  splits:\n  - name: {split}\n    num_bytes: {sizes}\n"
            f"    num_examples: {len(data.labels)}\n  download_size: {sizes}\n  dataset_size: {sizes}\n"
        )
        default = "  default: true\n" if number == 0 else ""
        listed.append(
            f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {config}/{split}-*\n{default}"
        )
    card = f"---\nlicense: mit\ndataset_info:\n{''.join(infos)}configs:\n{''.join(listed)}---\n# Digits\n"
    return files | {"README.md": card.encode()}


def _table(images: Sequence[bytes], labels: Sequence[int]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    cells = [{"bytes": data, "path": f"{index}.png"} for index, data in enumerate(images)]
    columns = {
        "image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array(labels, pa.int64()),
    }
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
