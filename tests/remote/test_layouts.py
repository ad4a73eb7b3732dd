"""``hf:`` data sets of the hub in the layouts that people push."""

from __future__ import annotations

import pytest
from loopback_hub import Hub, datasets
from loopback_hub.datasets import CLASSES

from clipeval.config import DatasetEntry
from clipeval.datasets.adapters.hf import open_hf
from clipeval.errors import DataError
from clipeval.remote import hub as remote

DATA = datasets.digits(13)


def opened(hub: Hub, files: dict[str, bytes], reference: str = "org/set", *, offline: bool = False):
    if ("dataset", "org/set") not in hub.repositories:
        hub.repository("org/set", files, kind="dataset")
    remote.begin()
    return open_hf("it", reference, "test", DatasetEntry(spec=f"hf:{reference}"), offline)


def told(dataset) -> list[tuple[str, bytes]]:
    """Class name and pixels of every sample, sorted: readers order files by name."""
    names = dataset.prompts.classes
    return sorted(
        (names[dataset.labels[i]], dataset.image(i).convert("RGB").tobytes()) for i in range(len(dataset.ids))
    )


TRUTH = sorted((CLASSES[label], DATA.picture(i).tobytes()) for i, label in enumerate(DATA.labels))


def image_folder() -> dict[str, bytes]:
    return {f"test/{CLASSES[label]}/{i}.png": DATA.images[i] for i, label in enumerate(DATA.labels)}


def parquet(parts: int) -> dict[str, bytes]:
    return datasets.parquet({"plain": DATA}, parts)


def undescribed(parts: int) -> dict[str, bytes]:
    return {path.replace("plain/", "data/"): data for path, data in parquet(parts).items() if path != "README.md"}


LAYOUTS = {
    "image folder": image_folder(),
    "one table": parquet(1),
    "three tables": parquet(3),
    "no README": undescribed(2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_online_and_offline(served: Hub, layout: str) -> None:
    assert told(opened(served, LAYOUTS[layout])) == TRUTH
    served.heal()
    assert told(opened(served, {}, offline=True)) == TRUTH
    assert served.requests == []


def test_a_webdataset_as_datasets_reads_it(served: Hub) -> None:
    files = {
        f"test-{n:05d}.tar": datasets.tar(
            [
                (f"s{i}.{kind}", data)
                for i in range(n, 13, 2)
                for kind, data in (("png", DATA.images[i]), ("cls", str(DATA.labels[i]).encode()))
            ]
        )
        for n in range(2)
    }
    found = opened(served, files)
    pairs = sorted((int(found.labels[i]), found.image(i).convert("RGB").tobytes()) for i in range(13))
    assert pairs == sorted((label, DATA.picture(i).tobytes()) for i, label in enumerate(DATA.labels))


def test_a_default_configuration(served: Hub) -> None:
    files = datasets.parquet({"plain": DATA, "other": datasets.digits(4, 50)})
    assert told(opened(served, files)) == TRUTH
    assert len(opened(served, files, "org/set:other").ids) == 4
    with pytest.raises(DataError, match="plain, other"):
        opened(served, files, "org/set:third")


def test_configurations_without_a_default(served: Hub) -> None:
    files = datasets.parquet({"plain": DATA, "other": DATA})
    files["README.md"] = files["README.md"].replace(b"  default: true\n", b"")
    with pytest.raises(DataError, match="org/set:plain"):
        opened(served, files)


def test_one_huge_group_of_rows(served: Hub, monkeypatch) -> None:
    from clipeval.datasets.adapters import parquet_rows

    monkeypatch.setattr(parquet_rows, "_LARGEST_GROUP", 1000)
    assert told(opened(served, parquet(2))) == TRUTH


def test_names_that_lead_out_of_the_folder(served: Hub, tmp_path) -> None:
    """A hub that lists what no repository can hold."""
    hostile = f"../../../../../../../..{tmp_path}/evil.png"
    repository = served.repository("org/set", parquet(1), kind="dataset")
    honest = repository.listing
    extra = {"type": "file", "oid": "0" * 40, "size": 1, "path": hostile}
    repository.listing = lambda *words: [*honest(*words), extra]
    with pytest.raises(DataError, match="evil"):
        opened(served, {})
    assert not (tmp_path / "evil.png").exists()
