"""The main job end to end, on real checkpoints and data made here: one table, whatever the way to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval.models import loader
from clipeval.results.schema import COLUMNS, TIMING_COLUMNS


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Two checkpoints with the same preprocessing, a classification folder and a retrieval set."""
    root = tmp_path_factory.mktemp("zoo")
    for seed, source in enumerate(["toy-a", "toy-b"]):
        tiny_checkpoint(root / "run" / "checkpoints" / f"{source}.pt", seed, source=source)
    image_folder(root / "colours")
    caption_shards(root / "pairs")
    return root


@pytest.fixture(scope="module")
def words(zoo):
    models = [str(zoo / "run/checkpoints" / name) for name in ("toy-a.pt", "toy-b.pt")]
    return models, [f"folder:{zoo}/colours", f"wds:{zoo}/pairs"], ["classification", "retrieval", "probe"]


def values(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=list(TIMING_COLUMNS))


@pytest.fixture(scope="module")
def reference(words, tmp_path_factory):
    """The table of an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("reference-cache")))
        return clipeval.run(*words, out=tmp_path_factory.mktemp("reference"), shots=[None, 2], workers=0)


def test_table_is_complete(reference):
    assert list(reference.columns) == list(COLUMNS)
    measured = reference[reference.status == "ok"]
    assert measured.value.between(0, 1).all()
    assert (measured.ci_low <= measured.value).all()
    assert (measured.value <= measured.ci_high).all()
    per_model = measured.groupby("model").size()
    # classification: 3; retrieval: 6; probe: 3 metrics, full and 3 draws of 2 shots
    assert per_model.tolist() == [3 + 6 + 3 * 4] * 2
    assert set(reference[reference.status != "ok"].status) == {"skipped"}
    assert set(reference.source) == {"toy-a", "toy-b"}
    assert (reference.samples_seen == 1234).all()
    assert (reference.gmacs_total == reference.gmacs * 1234).all()
    assert reference.checkpoint_sha256.str.fullmatch("[0-9a-f]{64}").all()
    assert sorted(measured.shots.dropna().unique()) == [2]
    assert sorted(measured[measured.shots == 2].seed.unique()) == [0, 1, 2]


def test_colours_are_learnt_by_the_probe(reference):
    full = reference[(reference.task == "linear_probe") & reference.shots.isna() & (reference.metric == "acc1")]
    assert full[full.status == "ok"].value.tolist() == [1, 1], (
        "six plain colours are linearly separable even for random towers"
    )


def test_skips_say_why(reference):
    skipped = reference[reference.status == "skipped"]
    assert set(zip(skipped.dataset, skipped.task, strict=True)) == {
        ("colours", "zeroshot_retrieval"),
        ("pairs", "zeroshot_classification"),
        ("pairs", "linear_probe"),
    }
    assert skipped.error.str.contains("has no").all()


def test_each_image_meets_the_model_once(words, tmp_path, monkeypatch):
    counts = {"images": 0, "texts": 0}
    encode_images, encode_tokens = loader.OpenClipEncoder.encode_images, loader.OpenClipEncoder.encode_tokens

    def count_images(self, pixels):
        counts["images"] += len(pixels)
        return encode_images(self, pixels)

    def count_tokens(self, tokens):
        counts["texts"] += len(tokens)
        return encode_tokens(self, tokens)

    monkeypatch.setattr(loader.OpenClipEncoder, "encode_images", count_images)
    monkeypatch.setattr(loader.OpenClipEncoder, "encode_tokens", count_tokens)
    models, datasets, tasks = words
    clipeval.run(models[:1], datasets, tasks, out=tmp_path, workers=0)
    assert counts["images"] == 31 + 55 + 23  # test and train split of the folder, and the captioned images
    assert counts["texts"] == len({*_prompts(datasets[0]), *(c for i in range(23) for c in _captions(i))})
    clipeval.run(models[:1], datasets, tasks, out=tmp_path / "again", workers=0)
    assert counts["images"] == 31 + 55 + 23, "another results folder finds the embeddings in the store"


def _prompts(spec):
    from clipeval import config, datasets

    selection = datasets.resolve([spec], config.load())
    [(name, entry)] = selection.datasets.items()
    return [text for texts in datasets.open_dataset(name, entry).prompts.texts() for text in texts]


def _captions(i):
    colours = ["red", "green", "blue", "yellow", "magenta", "cyan"]
    return [f"a {colours[i % 6]} square, view {k} of item {i}" for k in range(3)]


def test_second_checkpoint_decodes_nothing(words, tmp_path, monkeypatch):
    from clipeval.datasets.adapters import folder

    decoded = []
    real = folder.decode
    monkeypatch.setattr(folder, "decode", lambda *a: decoded.append(a) or real(*a))
    models, datasets, _ = words
    clipeval.run(models[:1], datasets[:1], ["classification"], out=tmp_path, workers=0)
    assert len(decoded) == 31
    clipeval.run(models[1:], datasets[:1], ["classification"], out=tmp_path, workers=0)
    assert len(decoded) == 31


@pytest.mark.parametrize(("batch_size", "workers"), [(7, 0), (64, 2), (7, 3)])
def test_loading_does_not_show_in_the_table(words, reference, tmp_path, batch_size, workers):
    frame = clipeval.run(*words, out=tmp_path, shots=[None, 2], batch_size=batch_size, workers=workers)
    pd.testing.assert_frame_equal(values(frame), values(reference))


def test_rerun_measures_nothing(words, tmp_path):
    first = clipeval.run(*words, out=tmp_path, workers=0)
    ledger = (tmp_path / "ledger.jsonl").read_bytes()
    pd.testing.assert_frame_equal(clipeval.run(*words, out=tmp_path, workers=0), first)
    assert (tmp_path / "ledger.jsonl").read_bytes() == ledger


def test_rerun_choices(words, tmp_path):
    models, datasets, _ = words
    arguments = models[:1], datasets[:1], ["classification"]
    clipeval.run(*arguments, out=tmp_path, workers=0)
    lines = len((tmp_path / "ledger.jsonl").read_text().splitlines())
    for rerun, more in (("never", 0), ("missing", 0), ("always", 1)):
        clipeval.run(*arguments, out=tmp_path, workers=0, rerun=rerun)
        lines += more
        assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == lines


def test_samples_agree_with_the_table(words, tmp_path):
    models, datasets, _ = words
    frame = clipeval.run(models[:1], datasets[:1], ["classification"], out=tmp_path, workers=0)
    [file] = (tmp_path / "samples").glob("*.parquet")
    outcomes = pd.read_parquet(file)
    assert outcomes.id.is_unique
    assert len(outcomes) == 31
    assert frame.set_index("metric").value["acc1"] == outcomes.correct.mean()


def test_limit_is_marked_and_spread(words, tmp_path):
    models, datasets, _ = words
    frame = clipeval.run(models[:1], datasets[:1], ["classification"], out=tmp_path, limit=12, workers=0)
    assert set(frame.status) == {"limited"}
    assert (frame.n == 12).all()
    [file] = (tmp_path / "samples").glob("*.parquet")
    assert pd.read_parquet(file).label.nunique() == 6


def test_metadata_override_from_a_users_file(zoo, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"models: [{{name: mine, spec: '{zoo}/run/checkpoints/toy-a.pt', source: LAION-2B, samples_seen: 5.0e6}}]\n"
        f"datasets: {{colours: 'folder:{zoo}/colours'}}\n"
    )
    frame = clipeval.run(config=path, out=tmp_path / "out", workers=0)
    assert set(frame.model) == {"mine"}
    assert set(frame.source) == {"LAION-2B"}
    assert (frame.gmacs_total == frame.gmacs * 5e6).all()


def command(*arguments: str, cache: Path, **more) -> subprocess.CompletedProcess:
    environment = os.environ | {"CLIPEVAL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "clipeval", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        **more,
    )


def arguments(words, out):
    models, datasets, tasks = words
    flags = [("-m", models), ("-d", datasets), ("-t", tasks)]
    return ["run", *(part for flag, items in flags for item in items for part in (flag, item)), "-o", str(out)]


def test_command_line_json_plan_and_table(words, reference, tmp_path, cache):
    asked = [*arguments(words, tmp_path / "out"), "--shots", "full,2"]
    planned = json.loads(command(*asked, "--plan", "--json", cache=cache).stdout)
    assert {cell["state"] for cell in planned} == {"to do", "skipped"}
    assert not (tmp_path / "out").exists()
    done = command(*asked, "--json", cache=cache)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["rows"]) == len(reference)
    assert all(list(row)[: len(COLUMNS)] == list(COLUMNS) for row in document["rows"]), "of skipped cells, too"
    assert {cell["state"] for cell in json.loads(command(*asked, "--plan", "--json", cache=cache).stdout)} == {"done"}
    table = command(*asked, cache=cache)
    assert "top-1" in table.stdout
    np.testing.assert_array_equal(clipeval.read_results(tmp_path / "out").value.to_numpy(), reference.value.to_numpy())
