"""Data sets of the hub, and Parquet as ``datasets`` writes it, as a source of pairs."""

import io

import datasets
import numpy as np
import pytest
import torch
from shard_files import image
from tiny_run import MODEL

from clipeval.errors import DataError
from clipeval_train.config import SourceEntry
from clipeval_train.input.decode import decode_image
from clipeval_train.input.source import open_source


def table(numbers, columns=("image", "text"), **more):
    """A Parquet file with the features that ``datasets`` notes in it."""
    cells = [{"bytes": image(number), "path": f"{number}.jpg"} for number in numbers]
    values = {columns[0]: cells, columns[1]: [f"text {number}" for number in numbers]} | more
    features = datasets.Features.from_arrow_schema(datasets.Dataset.from_dict(values).data.schema)
    features[columns[0]] = datasets.Image()
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(values, features).to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    for name, numbers in (("train-0", range(7)), ("train-1", range(7, 12)), ("test-0", range(50, 53))):
        more = {"alt": [f"alt {number}" for number in numbers], "score": [number / 10 for number in numbers]}
        (tmp_path / "set" / "data" / f"{name}.parquet").write_bytes(table(numbers, **more))
    return tmp_path / "set"


def opened(reference, **keys):
    return open_source(SourceEntry(source="s", shards=str(reference), **keys), 8)


def test_the_training_split_of_a_data_set(folder):
    source = opened(f"hf:{folder}")
    assert source.units.sum() == 12
    for number in range(12):
        pixels, captions = source.read(number)
        assert captions == [f"text {number}"]
        assert np.array_equal(pixels, decode_image(image(number)))
    assert not source.is_remote
    assert opened(f"hf:{folder}").fingerprint == source.fingerprint


def test_columns_may_be_named_and_rows_chosen(folder):
    source = opened(f"hf:{folder}", caption={"text": 1, "alt": 3}, where="score > 0.45")
    assert (source.units.sum(), source.dropped) == (7, 5)
    assert [source.read(0, draw)[1] for draw in (0.2, 0.3)] == [["text 5"], ["alt 5"]]
    assert source.fingerprint != opened(f"hf:{folder}").fingerprint


def test_a_single_file_and_other_names_of_columns(tmp_path):
    (tmp_path / "a.parquet").write_bytes(table(range(4), ("picture", "txt")))
    assert opened(f"hf:{tmp_path}/a.parquet").read(3)[1] == ["text 3"]


def test_what_cannot_be_used_is_said(folder, tmp_path):
    (tmp_path / "a.parquet").write_bytes(table(range(4), ("picture", "story")))
    with pytest.raises(DataError, match="data: s: no column is known to hold captions: there are picture, story; `cap"):
        opened(f"hf:{tmp_path}/a.parquet")
    assert opened(f"hf:{tmp_path}/a.parquet", caption="story").read(1)[1] == ["text 1"]
    with pytest.raises(DataError, match="has no column alt"):
        opened(f"hf:{tmp_path}/a.parquet", caption="alt")
    for path in folder.glob("data/train-*"):
        path.unlink()
    with pytest.raises(DataError, match="has no split 'train'; it has test"):
        opened(f"hf:{folder}")
    with pytest.raises(DataError, match="data: s: there is no file or folder /no/such, and it is not a"):
        opened("hf:/no/such")
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / "train" / name).mkdir(parents=True)
        (tmp_path / "pictures" / "train" / name / "a.jpg").write_bytes(image(0))
    with pytest.raises(DataError, match=r"is read for training where it is in Parquet .*of the kind imagefolder"):
        opened(f"hf:{tmp_path}/pictures")


def test_a_run_trains_on_a_data_set_of_the_hub(hub):
    """The whole command: fetched once through the door, not again by the same command."""
    files = {f"data/train-{part}.parquet": table(range(20 * part, 20 * part + 20)) for part in range(2)}
    hub.repository("org/pairs", files, kind="dataset")
    (hub.folder / "run.yaml").write_text(
        f"model: {MODEL}\ndata: [{{source: pairs, shards: 'hf:org/pairs'}}]\n"
        "samples: 18\nbatch_size: 6\nlr: 1e-2\nworkers: 0\nout: out\n"
    )
    program = "import sys; from clipeval_train.cli import main; sys.argv = ['clipeval-train', *sys.argv[1:]]; main()"
    said = hub.python(program, "pretrain", "run.yaml")
    fetched = len(hub.seen(r"\.parquet|[0-9a-f]{64}", method="GET"))
    assert "samples_000000000018.pt" in said
    metadata = torch.load(hub.folder / "out/checkpoints/samples_000000000018.pt", weights_only=True)["metadata"]
    assert metadata["unique_samples"] == 40
    hub.python(program, "pretrain", "run.yaml", "samples=24", "out=longer")
    assert len(hub.seen(r"\.parquet|[0-9a-f]{64}", method="GET")) == fetched > 0
