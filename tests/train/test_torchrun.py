"""Several processes: the same samples and losses as one, resumed by another number, started by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import pytest
import torch
import yaml
from helpers import caption_shards
from shard_files import sound
from tiny_run import MODEL, assert_weights_close, tiny_config
from worlds import in_processes, one

import clipeval
from clipeval.errors import DataError, UsageError
from clipeval_train import contrastive, loop


class Kill(BaseException):
    """Stands for the end of the process."""


def run(world, config, steps=None):
    """Train in this world, at most so many steps: the samples of each batch that were this rank's."""
    batches = []
    opened = contrastive.open_corpus

    def watched(*arguments):
        corpus = opened(*arguments)
        original = corpus.batches

        def recorded(*place):
            for batch in original(*place):
                if len(batches) == steps:
                    raise Kill
                batches.append(batch.keys.tolist())
                yield batch

        corpus.batches = recorded
        return corpus

    @contextmanager
    def this_world(device):
        yield world

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrastive, "open_corpus", watched)
        patch.setattr("clipeval_train.together.open_world", this_world)
        with suppress(Kill):
            loop.pretrain(config)
    return batches


def settings(out, **changes):
    return tiny_config(out, samples=416, save_every=64, **changes)


def of_two(world, folder):
    with pytest.raises(UsageError, match=r"batch_size: 33 cannot be divided by 2 processes\. Give a multiple of 2"):
        run(world, settings(folder / "odd", batch_size=33))
    with pytest.raises(UsageError, match="samples: 417 cannot be divided by 2 processes"):
        run(world, tiny_config(folder / "odd", samples=417))
    return run(world, settings(folder / "one-two")), run(world, settings(folder / "two-one"), steps=7)


def losses(out):
    return {line["samples"]: line["loss"] for line in map(json.loads, (out / "log.jsonl").read_text().splitlines())}


def together(ranks):
    return [sorted(chain(*parts)) for parts in zip(*ranks, strict=True)]


def test_another_number_of_processes_goes_on_with_the_same_samples_and_losses(tmp_path):
    """One process throughout; one and then two; two and then one, each killed after seven batches, one of them lost."""
    whole = run(one(), settings(tmp_path / "whole"))
    assert len(whole) == 13
    assert len(set(chain(*whole))) == 416
    first = run(one(), settings(tmp_path / "one-two"), steps=7)
    ranks = in_processes(2, tmp_path / "processes", of_two, tmp_path)
    second = run(one(), settings(tmp_path / "two-one"))
    expected = [sorted(batch) for batch in whole]
    assert [sorted(batch) for batch in first] == expected[:7]
    assert together([rank[0] for rank in ranks]) == expected[6:]
    assert together([rank[1] for rank in ranks]) == expected[:7]
    assert [sorted(batch) for batch in second] == expected[6:]
    for name in ("one-two", "two-one"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
        mine, theirs = (
            torch.load(tmp_path / out / "checkpoints/samples_000000000416.pt")["state_dict"] for out in (name, "whole")
        )
        # Adam turns rounding of near-zero gradients into steps of the size of the rate
        assert_weights_close(mine, theirs, rtol=1e-2, atol=5e-3)


def of_a_slow_disk(world, config):
    with pytest.MonkeyPatch.context() as patch:
        if world.rank:
            patch.setattr("clipeval_train.checkpoint.newest", lambda out: None)
        return run(world, config)


def test_a_disk_that_shows_a_checkpoint_late_to_other_machines(tmp_path):
    config = settings(tmp_path / "run")
    run(one(), config, steps=7)
    ranks = in_processes(2, tmp_path / "processes", of_a_slow_disk, config)
    assert [len(batches) for batches in ranks] == [7, 7]
    assert max(losses(tmp_path / "run")) == 416


def of_disks_of_their_own(world, folder):
    os.chdir(folder / f"disk-{world.rank}")
    data = [{"source": "s", "shards": "*.tar"}]
    with pytest.raises(DataError) as met:
        run(world, settings(folder / "run", data=data, batch_size=8, workers=0))
    return str(met.value)


def test_machines_with_other_data_under_the_same_names_do_not_train_together(tmp_path):
    for rank, size in enumerate((40, 41)):
        sound(tmp_path / f"disk-{rank}", [size])
    for message in in_processes(2, tmp_path / "processes", of_disks_of_their_own, tmp_path):
        assert message.startswith("data: process 1 of 2 finds other samples than process 0. Put the same files on all")


def test_torchrun_trains_from_shards_and_clipeval_reads_the_checkpoint(tmp_path):
    caption_shards(tmp_path / "pairs", images=130)
    config = {
        "model": MODEL,
        "arch": "tiny",
        "data": [{"source": "squares", "shards": f"{tmp_path}/pairs/test/{{0..1}}.tar"}],
        "workers": 1,
        "samples": 200,
        "batch_size": 16,
        "lr": 1e-2,
        "save_every": 96,
        "evaluate": {"every": 96, "datasets": ["digits", f"wds:{tmp_path}/pairs"]},
        "out": str(tmp_path / "run"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "clipeval_train", "pretrain", str(tmp_path / "run.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = tmp_path / "run/checkpoints/samples_000000000200.pt"
    assert done.stdout.split() == [str(checkpoint)]
    assert max(losses(tmp_path / "run")) == 200
    curves = clipeval.read_results(tmp_path / "run/results")
    assert curves["status"].eq("ok").all()
    assert curves.groupby("dataset")["samples_seen"].unique().map(list).tolist() == [[96, 192, 200]] * 2
    assert not (tmp_path / "run/results/ranks").exists()
    table = clipeval.run(str(checkpoint), ["digits", f"wds:{tmp_path}/pairs"], out=tmp_path / "results", workers=0)
    columns = ["dataset", "metric", "value", "samples_seen", "source", "gmacs"]
    last = curves[curves["samples_seen"] == 200]
    assert last[columns].to_numpy().tolist() == table[columns].to_numpy().tolist()
    assert set(table["source"]) == {"squares"}


def test_what_is_wrong_with_a_configuration_is_said_once(tmp_path):
    (tmp_path / "run.yaml").write_text("sample: 3\n")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "clipeval_train", "pretrain", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("unknown key. Did you mean 'samples'?") == 1
    assert "exitcode  : 2" in done.stderr


def raises(*arguments):
    raise DataError("this disk is broken.")


def encoded_here(world, arguments):
    """Evaluate 355 images with a cache of this rank's own: how many it encoded, and what it said of others."""
    from clipeval.models.encoder import OpenClipEncoder
    from clipeval_train.config import EvaluateEntry
    from clipeval_train.evaluation import evaluate

    checkpoint, folder, failing = arguments
    counts, said = [], []
    original = OpenClipEncoder.encode_images
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(folder / f"cache-{world.rank}"))
        patch.setattr(
            OpenClipEncoder, "encode_images", lambda self, images: counts.append(len(images)) or original(self, images)
        )
        patch.setattr("clipeval_train.evaluation.say", said.append)
        if world.rank == failing:
            patch.setattr("clipeval.evaluation.workbench.images.embed", raises)
        evaluate(EvaluateEntry(every=1, datasets=("digits",)), checkpoint, folder / "out", world)
    return sum(counts), [line for line in said if "leaves its images" in line]


@pytest.mark.parametrize(("failing", "encoded"), [(None, [128, 128, 99]), (2, [128 + 99, 128, 0])])
def test_ranks_without_a_common_cache_share_the_images_of_a_data_set(tmp_path, failing, encoded):
    """What one of them cannot do is done by the first, with a line."""
    checkpoint = loop.pretrain(tiny_config(tmp_path / "run", samples=64, warmup=0))
    found = in_processes(3, tmp_path / "processes", encoded_here, (checkpoint, tmp_path, failing))
    assert [count for count, _ in found] == encoded
    told = ["digits: process 2 leaves its images to process 0: this disk is broken."]
    assert [lines for _, lines in found] == [told if failing else [], [], []]
    [row] = clipeval.read_results(tmp_path / "out/results").query("metric == 'acc1'").to_dict("records")
    alone = clipeval.run(str(checkpoint), "digits", out=tmp_path / "alone", workers=0)
    assert [row["value"]] == alone.query("metric == 'acc1'")["value"].tolist()


def test_a_folder_in_use_ends_every_process(tmp_path):
    """Only rank 0 meets the lock; the other one has to hear of it."""
    assert in_processes(2, tmp_path / "processes", _refused, tmp_path) == ["another run is writing here"] * 2


def _refused(world, folder: Path):
    from clipeval_train.checkpoint import claimed

    if world.is_main:
        with claimed(folder / "run"):
            return _message(world, folder)
    return _message(world, folder)


def _message(world, folder):
    with pytest.raises(UsageError, match="another run is writing here"):
        run(world, settings(folder / "run"))
    return "another run is writing here"
