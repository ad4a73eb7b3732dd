"""Whole runs: exact samples, resume bit for bit, branches, rollbacks, signals, losses, what is logged."""

import json
import math
import os
import re
import signal
import sys
import time
import types
from pathlib import Path

import pytest
import torch
import yaml
from tiny_run import MODEL, assert_weights_close, tiny_config

import clipeval
from clipeval.errors import DataError, MeasureError, UsageError
from clipeval.models import profile
from clipeval_train import checkpoint, contrastive
from clipeval_train.config import load_pretrain
from clipeval_train.distributed import World
from clipeval_train.loop import pretrain
from clipeval_train.schedule import learning_rate
from clipeval_train.step import MAX_LOGIT_SCALE
from clipeval_train.trainer import Trainer


def read(path):
    return torch.load(path, weights_only=True)


def weights(path):
    return read(path)["state_dict"]


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run: (configuration, its last checkpoint's path)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = tiny_config(tmp_path_factory.mktemp("run") / "whole", ema=0.9)
        return config, pretrain(config)


class Kill(BaseException):
    """Stands for the end of the process."""


def before_each_step(monkeypatch, act):
    """``act(number of the step, from 0)`` before each gradient; what it returns is added to the loss."""
    done, count = Trainer.gradient, iter(range(10**6))

    def gradient(self, *args):
        extra = act(next(count))
        loss, norm = done(self, *args)
        return loss + (extra or 0.0), norm

    monkeypatch.setattr(Trainer, "gradient", gradient)


def killed_after(monkeypatch, steps):
    def act(number):
        if number == steps:
            raise Kill

    before_each_step(monkeypatch, act)


def test_samples_are_exact_and_the_last_batch_is_cut(tmp_path, monkeypatch):
    sizes, done = [], Trainer.gradient
    monkeypatch.setattr(Trainer, "gradient", lambda self, *args: sizes.append(len(args[0])) or done(self, *args))
    path = pretrain(tiny_config(tmp_path))
    assert sizes == [32] * 13 + [7]
    assert path == tmp_path / "checkpoints/samples_000000000423.pt"
    assert read(path)["metadata"]["samples_seen"] == 423
    assert lines(tmp_path)[-1]["samples"] == 423
    assert lines(tmp_path)[-2]["loss"] < lines(tmp_path)[0]["loss"]


def test_two_runs_are_equal_and_another_seed_is_not(finished, tmp_path):
    assert_equal_weights(weights(finished[1]), weights(pretrain(tiny_config(tmp_path / "a"))))
    other = weights(pretrain(tiny_config(tmp_path / "b", seed=1)))
    assert not torch.equal(weights(finished[1])["text_projection"], other["text_projection"])


def test_a_finished_run_is_left_alone(finished, capsys):
    config, path = finished
    before = path.stat().st_mtime_ns
    assert pretrain(config) == path
    assert path.stat().st_mtime_ns == before
    assert "already finished" in capsys.readouterr().err


@pytest.mark.parametrize(("save_every", "steps"), [(100, 6), (32, 1), (64, 13)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(finished, tmp_path, monkeypatch, save_every, steps):
    config = tiny_config(tmp_path, save_every=save_every, ema=0.9)
    with monkeypatch.context() as patch:
        killed_after(patch, steps)
        with pytest.raises(Kill):
            pretrain(config)
    spent = lines(tmp_path)[-1]["seconds"]
    torch.rand(5)  # the process that resumes has another random state
    path = pretrain(config)
    assert_equal_weights(weights(path), weights(finished[1]))
    assert_equal_weights(read(path)["ema"], read(finished[1])["ema"])
    logged = [line["samples"] for line in lines(tmp_path)]
    assert logged == sorted(set(logged))
    assert logged[-1] == 423
    assert lines(tmp_path)[-1]["seconds"] == read(path)["metadata"]["seconds"] or spent < lines(tmp_path)[-1]["seconds"]


def test_dropout_draws_go_on_where_they_were(tmp_path, monkeypatch):
    model = MODEL | {"vision_cfg": MODEL["vision_cfg"] | {"patch_dropout": 0.5}}
    whole = weights(pretrain(tiny_config(tmp_path / "whole", model=model, samples=160)))
    config = tiny_config(tmp_path / "parts", model=model, samples=160, save_every=64)
    with monkeypatch.context() as patch:
        killed_after(patch, 3)
        with pytest.raises(Kill):
            pretrain(config)
    assert_equal_weights(weights(pretrain(config)), whole)


def test_checkpoints_come_at_the_first_batch_end_past_each_multiple(tmp_path):
    pretrain(tiny_config(tmp_path, save_every=100))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"samples_{n:012d}.pt" for n in (128, 224, 320, 416, 423)]
    assert read(tmp_path / "checkpoints" / names[0])["resume"] is not None
    assert read(tmp_path / "checkpoints" / names[-1])["resume"] is None
    flags = [read(tmp_path / "checkpoints" / name)["metadata"]["from_scratch_filter"] for name in names]
    assert flags == ["learning rate not yet 0"] * 4 + [""]


def test_checkpoints_by_the_clock(tmp_path):
    pretrain(tiny_config(tmp_path, samples=96, warmup=0, save_minutes=1e-9))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3
    pretrain(tiny_config(tmp_path / "rarely", samples=96, warmup=0, save_minutes=60))
    assert len(list((tmp_path / "rarely/checkpoints").iterdir())) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(finished, tmp_path, monkeypatch, capsys, number):
    config = tiny_config(tmp_path, ema=0.9)
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        before_each_step(patch, lambda step: os.kill(os.getpid(), number) if step == 4 else None)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config)
    assert signal.getsignal(number) == handler
    assert checkpoint.newest(tmp_path).name == "samples_000000000160.pt"
    assert "told to stop; saved at 160 of 423 samples" in capsys.readouterr().err
    assert_equal_weights(weights(pretrain(config)), weights(finished[1]))


def test_a_signal_before_the_first_step_leaves_nothing_to_save(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("clipeval_train.loop._Run._catch_up", lambda run: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_config(tmp_path))
    assert "told to stop; nothing is to be saved yet" in capsys.readouterr().err
    assert checkpoint.newest(tmp_path) is None


def test_other_settings_do_not_continue_a_run(finished):
    config, _ = finished
    with pytest.raises(UsageError, match=r"holds a run with lr: 0.01, and this one says 0.02. Give another `out`"):
        pretrain(config.model_copy(update={"lr": 0.02}))
    with pytest.raises(UsageError, match=r"holds a run with samples: 423, and this one says 500"):
        pretrain(config.model_copy(update={"samples": 500}))


def follow(message, config):
    """Run the command that a message names, with CONFIG as it was: what it returns."""
    words = re.search(r"clipeval-train pretrain CONFIG (.*)", message)[1].split()
    file = Path(config.out).parent / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    return pretrain(load_pretrain(file, words))


def test_a_run_that_diverged_goes_on_by_the_command_that_it_names(tmp_path, monkeypatch):
    config = tiny_config(tmp_path / "run", save_every=64)
    with monkeypatch.context() as patch:
        before_each_step(patch, nan_at(5))
        with pytest.raises(MeasureError) as stopped:
            pretrain(config)
    saved = read(follow(str(stopped.value), config))["metadata"]
    assert (saved["samples_seen"], saved["config"]["lr"], saved["from_scratch_filter"]) == (423, 0.005, "")
    [part] = saved["history"]
    assert (part["until"], part["config"]["lr"], part["other_data"]) == (128, 0.01, False)
    rates = [line["lr"] for line in lines(tmp_path / "run-2")]
    assert rates == pytest.approx([learning_rate(n - 16, config) / 2 for n in range(160, 417, 32)] + rates[-1:])


def test_settings_that_are_refused_go_on_by_the_command_that_is_named(tmp_path, monkeypatch):
    config = tiny_config(tmp_path / "run", save_every=64)
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(Kill):
            pretrain(config)
    changes = {"precision": "bf16", "betas": (0.8, 0.9), "eps": 1e-5, "weight_decay": 0.1, "grad_clip": 1.0}
    changes |= {"schedule": "constant", "warmup": 50, "batch_size": 16}
    for key, value in changes.items():
        with pytest.raises(UsageError, match=f"holds a run with {key}") as refused:
            pretrain(config.model_copy(update={key: value}))
    path = follow(str(refused.value), config.model_copy(update=changes))
    saved = read(path)
    assert saved["metadata"]["samples_seen"] == 423
    assert [group["betas"] for group in saved["resume"]["optimizer"]["param_groups"]] == [(0.8, 0.9)] * 2
    assert [group["weight_decay"] for group in saved["resume"]["optimizer"]["param_groups"]] == [0.1, 0.0]
    again = read(
        pretrain(
            config.model_copy(update=changes | {"start_from": str(path), "samples": 500, "out": str(tmp_path / "x")})
        )
    )
    assert [part["until"] for part in again["metadata"]["history"]] == [128]


def test_other_data_may_follow_and_is_told(tmp_path):
    pretrain(constant(tmp_path / "run", samples=128))
    icons = [{"source": "icons", "shards": "builtin:icons/material"}]
    config = constant(tmp_path / "more", samples=192, data=icons, start_from=str(tmp_path / "run"), cooldown=32)
    metadata = read(pretrain(config))["metadata"]
    assert metadata["source"] == "icons"
    assert metadata["from_scratch_filter"] == "other data until 128 samples"
    assert read(pretrain(config))["metadata"] == metadata


def test_changed_data_does_not_continue_a_run(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, save_every=64)
    with monkeypatch.context() as patch:
        killed_after(patch, 3)
        with pytest.raises(Kill):
            pretrain(config)
    opened = contrastive.open_corpus

    def changed(*args):
        corpus = opened(*args)
        corpus.fingerprint = "x"
        return corpus

    monkeypatch.setattr(contrastive, "open_corpus", changed)
    with pytest.raises(DataError, match="the data has changed since this run began"):
        pretrain(config)


def constant(out, **changes):
    return tiny_config(out, schedule="constant", **changes)


def test_a_branch_equals_a_run_that_was_planned_so(tmp_path):
    """One trunk, two points: each has the weights of a run of its own that cools down at the same samples."""
    pretrain(constant(tmp_path / "trunk", save_every=128))
    for start, samples in ((128, 200), (256, 423)):
        own = constant(tmp_path / f"own-{samples}", samples=samples, cooldown=samples - start)
        trunk = tmp_path / f"trunk/checkpoints/samples_{start:012d}.pt"
        branch = own.model_copy(update={"out": str(tmp_path / f"branch-{samples}"), "start_from": str(trunk)})
        saved = read(pretrain(branch))
        assert_equal_weights(saved["state_dict"], weights(pretrain(own)))
        assert saved["metadata"]["samples_seen"] == samples
        assert saved["metadata"]["from_scratch_filter"] == ""
        assert saved["metadata"]["history"] == []
        assert pretrain(branch) == branch.path(samples)
    longer = constant(tmp_path / "longer", samples=500, start_from=str(tmp_path / "trunk"))
    metadata = read(pretrain(longer))["metadata"]
    assert (metadata["samples_seen"], metadata["from_scratch_filter"]) == (500, "constant learning rate")


def test_branches_that_cannot_be(tmp_path):
    pretrain(constant(tmp_path / "trunk", samples=128))
    start = str(tmp_path / "trunk")
    for changes, message in (
        ({"samples": 128}, "has seen 128 samples. Give more `samples`"),
        ({"samples": 160, "seed": 3}, "is of a run with seed: 0, and this one says 3. Leave seed as it was"),
        ({"samples": 160, "start_from": str(tmp_path)}, "no checkpoint of clipeval-train is there"),
    ):
        with pytest.raises(UsageError, match=message):
            pretrain(constant(tmp_path / "branch", **{"start_from": start} | changes))
    late = read(pretrain(constant(tmp_path / "late", samples=160, cooldown=40, start_from=start)))["metadata"]
    assert [part["until"] for part in late["history"]] == [128], "its rate fell from 120 on, the trunk's did not"
    ended = pretrain(constant(tmp_path / "ended", samples=128, cooldown=28))
    with pytest.raises(UsageError, match="is the end of its run, and holds weights alone"):
        pretrain(constant(tmp_path / "branch", start_from=str(ended)))


def nan_at(*steps):
    return lambda step: math.nan if step in steps else None


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    before_each_step(monkeypatch, nan_at(5))
    with pytest.raises(
        MeasureError,
        match=r"loss nan, gradient norm \S+ after 160 samples. Lower lr, .* go on from samples_000000000128.pt: ",
    ):
        pretrain(tiny_config(tmp_path, save_every=64))
    assert checkpoint.load(checkpoint.newest(tmp_path))["metadata"]["samples_seen"] == 128


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    done = Trainer.gradient
    monkeypatch.setattr(Trainer, "gradient", lambda self, *args: (done(self, *args)[0], torch.tensor(math.inf)))
    with pytest.raises(MeasureError, match=r"gradient norm inf after 0 samples.* and go on with another `out`"):
        pretrain(tiny_config(tmp_path))


def test_a_rollback_leaves_the_data_out_and_keeps_the_count(tmp_path, monkeypatch, capsys):
    """NaN in the batch [160, 192): back to 128, and the stream goes on at 192."""
    seen, opened = [], contrastive.open_corpus

    def watched(*args):
        corpus = opened(*args)
        batches = corpus.batches

        def record(start, stop, *more):
            for batch in batches(start, stop, *more):
                seen.append((batch.start, batch.stop))
                yield batch

        corpus.batches = record
        return corpus

    monkeypatch.setattr(contrastive, "open_corpus", watched)
    before_each_step(monkeypatch, nan_at(5))
    path = pretrain(tiny_config(tmp_path, save_every=64, on_nonfinite="rollback"))
    assert seen[4:8] == [(128, 160), (160, 192), (192, 224), (224, 256)]
    assert seen[-1] == (480, 487)
    metadata = read(path)["metadata"]
    assert (metadata["samples_seen"], metadata["rollbacks"], metadata["left_out"]) == (423, 1, 64)
    events = [line for line in lines(tmp_path) if "event" in line]
    assert events == [
        {
            "samples": 128,
            "event": "rollback",
            "reason": events[0]["reason"],
            "left_out_from": 128,
            "left_out_to": 192,
        }
    ]
    assert "Back at 128 samples; 64 are left out." in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_after_the_broken_one_is_lost_with_it(tmp_path, monkeypatch, precision):
    """NaN in [192, 224), where nothing is saved: it is read when the next batch is under way."""
    steps = []
    before_each_step(monkeypatch, lambda step: steps.append(step) or nan_at(6)(step))
    settings = {"save_every": 64, "on_nonfinite": "rollback", "precision": precision}
    path = pretrain(tiny_config(tmp_path, **settings))
    [event] = [line for line in lines(tmp_path) if "event" in line]
    assert (event["samples"], event["left_out_from"], event["left_out_to"]) == (192, 192, 224)
    assert read(path)["metadata"]["left_out"] == 32
    assert len(steps) == 14 + 2, "the broken one, and one more"
    assert [line["samples"] for line in lines(tmp_path)][5:8] == [192, 192, 224]


def test_no_checkpoint_holds_a_broken_step(tmp_path, monkeypatch):
    """Every place at which one is saved, and the end: the error comes first."""
    for step, samples in ((3, 96), (13, 416)):
        with monkeypatch.context() as patch:
            before_each_step(patch, nan_at(step))
            with pytest.raises(MeasureError, match=f"after {samples} samples"):
                pretrain(tiny_config(tmp_path / str(step), save_every=64))
        saved = checkpoint.load(checkpoint.newest(tmp_path / str(step)))
        assert saved["metadata"]["samples_seen"] == samples // 64 * 64
        assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_what_time_and_signals_saved_makes_room_and_what_was_asked_for_stays(tmp_path):
    pretrain(tiny_config(tmp_path, save_minutes=1e-9, save_every=128))
    names = sorted(int(path.stem[-12:]) for path in (tmp_path / "checkpoints").iterdir())
    assert names == [128, 256, 320, 352, 384, 416, 423], "three that time saved, at 320, 352 and 416"


def test_precision_is_settled_by_the_device(tmp_path):
    saved = read(pretrain(tiny_config(tmp_path, samples=32, warmup=0)))
    assert saved["metadata"]["config"]["precision"] == "fp32"
    assert tiny_config(tmp_path).on("cuda").precision == "bf16"
    assert tiny_config(tmp_path, precision="fp16").on("cuda").precision == "fp16"


def test_a_rollback_survives_a_restart(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        before_each_step(patch, nan_at(5))
        whole = weights(pretrain(tiny_config(tmp_path / "whole", save_every=64, on_nonfinite="rollback")))
    config = tiny_config(tmp_path / "parts", save_every=64, on_nonfinite="rollback")
    with monkeypatch.context() as patch:
        killed_after(patch, 10)
        before_each_step(patch, nan_at(5))
        with pytest.raises(Kill):
            pretrain(config)
    assert_equal_weights(weights(pretrain(config)), whole)


def test_rollbacks_end(tmp_path, monkeypatch):
    before_each_step(monkeypatch, lambda step: math.nan if step >= 3 else None)
    with pytest.raises(MeasureError, match=r"after 64 samples. 5 times the data was left out. Lower lr"):
        pretrain(tiny_config(tmp_path, save_every=64, on_nonfinite="rollback"))


def alone(config):
    """A trainer in a process of its own, and its model."""
    task, world = contrastive.ContrastiveTask(config), World(0, 1, 0, torch.device("cpu"))
    task.open(config, world, None)
    return Trainer(task, world), task.step.module


def test_the_logit_scale_stays_in_its_range_and_leaves_the_bound_again(tmp_path):
    config = tiny_config(tmp_path)
    trainer, clip = alone(config)
    images, tokens = torch.randn(8, 3, 16, 16), torch.randint(1, 999, (8, 12))
    bounds = set()
    for direction in (-1.0, 1.0):  # the optimizer's gradient is forced, as if the data pulled that way
        for _ in range(60):
            loss, norm = trainer.gradient(images, tokens)
            clip.logit_scale.grad.fill_(direction)
            trainer.update(loss, norm, 1.0, 0)
            assert 0 <= clip.logit_scale.item() <= MAX_LOGIT_SCALE + 1e-6
            bounds.add(round(clip.logit_scale.item(), 4))
    assert {0.0, round(MAX_LOGIT_SCALE, 4)} <= bounds


def test_a_step_that_fp16_skips_is_counted_and_its_samples_are_seen(tmp_path):
    config = tiny_config(tmp_path)
    trainer, clip = alone(config)
    trainer._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = clip.text_projection.detach().clone()
    for overflow, skipped in ((True, 1), (False, 1)):
        loss, norm = trainer.gradient(torch.randn(8, 3, 16, 16), torch.randint(1, 999, (8, 12)))
        if overflow:
            clip.text_projection.grad[0, 0] = math.inf
            trainer._scaler._per_optimizer_states.clear()  # it has looked at the gradient already
            trainer._scaler.unscale_(trainer._optimizer)
            norm = torch.tensor(math.inf)
        assert not trainer.is_broken(loss.item(), norm.item())
        trainer.update(loss, norm, 0.1, 8)
        assert trainer.skips(norm.item()) == overflow
        assert trainer.counts()["skipped_steps"] == skipped
        assert torch.equal(clip.text_projection.detach(), before) == overflow
    assert trainer.clock.seen == 8


def test_bf16_trains_fp32_weights(finished, tmp_path):
    trained = weights(pretrain(tiny_config(tmp_path, precision="bf16")))
    assert all(weight.dtype == torch.float32 for weight in trained.values())
    exact = weights(finished[1])["text_projection"]
    assert not torch.equal(trained["text_projection"], exact)
    cosine = torch.nn.functional.cosine_similarity(trained["text_projection"].flatten(), exact.flatten(), dim=0)
    assert cosine == pytest.approx(1, abs=0.05)


def test_micro_batches_and_clipping_learn_the_same(finished, tmp_path):
    """Micro-batches change rounding alone; a limit above every norm changes nothing at all."""
    trained = weights(pretrain(tiny_config(tmp_path / "micro", micro_batch=8, activation_checkpointing=True)))
    assert_weights_close(trained, weights(finished[1]), rtol=1e-2, atol=2e-3)
    assert_equal_weights(weights(pretrain(tiny_config(tmp_path / "high", grad_clip=1e6))), weights(finished[1]))
    low = weights(pretrain(tiny_config(tmp_path / "low", grad_clip=1e-4)))
    assert not torch.equal(low["text_projection"], weights(finished[1])["text_projection"])


def test_the_sigmoid_loss_trains_a_bias_and_clipeval_reads_it(tmp_path):
    path = pretrain(tiny_config(tmp_path / "sigmoid", loss="siglip"))
    saved = read(path)
    assert saved["model_cfg"]["init_logit_bias"] == -10
    assert saved["state_dict"]["logit_bias"] != -10
    losses = [line["loss"] for line in lines(tmp_path / "sigmoid")]
    assert losses[-2] < losses[0]
    table = clipeval.run(str(path), "digits", "classification", out=tmp_path / "results", workers=0)
    assert table["status"].eq("ok").all()


def test_custom_text_models_train_and_are_read_back(tmp_path):
    path = pretrain(tiny_config(tmp_path / "custom", model=MODEL | {"custom_text": True}, samples=64, warmup=0))
    assert "text.token_embedding.weight" in weights(path)
    table = clipeval.run(str(path), "digits", "classification", out=tmp_path / "results", workers=0)
    assert table["status"].eq("ok").all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_fp16_needs_a_gpu(tmp_path):
    with pytest.raises(UsageError, match="precision: fp16 needs a CUDA device"):
        pretrain(tiny_config(tmp_path, precision="fp16"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 9}, "model: 'custom': open_clip cannot build"),
        ({"vocab_size": 100}, "model.text_cfg.vocab_size: 100, but CLIP's encoding has 49408 tokens"),
    ],
)
def test_impossible_models_are_refused(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        pretrain(tiny_config(tmp_path, model=MODEL | {"text_cfg": MODEL["text_cfg"] | change}))


@pytest.mark.parametrize("text", ["my own", "my own\n", '{"a": 1}\n', '{"samples": 1}\n[2]\n', "caf\xe9\n"])
def test_a_log_that_no_run_wrote_is_not_overwritten(tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text(text, "latin-1")
    with pytest.raises(UsageError, match=r"log\.jsonl: not the log of a run: it would be overwritten"):
        pretrain(tiny_config(tmp_path / "run"))
    assert (tmp_path / "run" / "log.jsonl").read_text("latin-1") == text


def test_a_log_line_holds_rates_and_costs(tmp_path):
    """MFU by its definition: six operations per multiply-accumulate and sample, over the peak."""
    path = pretrain(tiny_config(tmp_path, peak_tflops=0.5))
    for line in lines(tmp_path):
        gmacs = profile.of_config(MODEL).gmacs
        assert line["mfu"] == pytest.approx(line["samples_per_second"] * 6 * gmacs * 1e9 / 0.5e12)
        assert 0 <= line["data_wait"] <= 1
        assert line["grad_norm"] > 0
        assert line["memory_gb"] > 0.05
        assert (line["gpu_hours"], line["energy_kwh"]) == (None, None)
        assert line["bad_samples"] == {}
    assert [line["seconds"] for line in lines(tmp_path)] == sorted(line["seconds"] for line in lines(tmp_path))
    assert read(path)["metadata"]["seconds"] >= lines(tmp_path)[-1]["seconds"]


def test_loggers_get_every_number(tmp_path, monkeypatch):
    written = []

    class Run:
        def log(self, values, step):
            written.append((step, values))

        def finish(self):
            written.append("finished")

    opened = []
    init = types.SimpleNamespace(init=lambda **settings: opened.append(settings) or Run())
    monkeypatch.setitem(sys.modules, "wandb", init)
    config = tiny_config(tmp_path, samples=64, warmup=0, loggers=("wandb",), save_every=32)
    with monkeypatch.context() as patch:
        killed_after(patch, 1)
        with pytest.raises(Kill):
            pretrain(config)
    pretrain(config)
    assert [entry for entry in written if entry == "finished"] == ["finished"] * 2
    assert [step for step, _ in (entry for entry in written if entry != "finished")] == [32, 64]
    assert written[0][1]["loss"] == lines(tmp_path)[0]["loss"]
    assert opened[0]["id"] == opened[1]["id"], "a run that goes on is one run there"
    assert opened[1]["resume"] == "allow"


def test_the_loss_that_is_told_is_of_whole_batches(tmp_path, capsys):
    """The last batch has 7 pairs, among which chance has a lower loss than among 32."""
    pretrain(tiny_config(tmp_path, lr=1e-9))
    batches = [(line["batch"], line["loss"]) for line in lines(tmp_path)]
    assert [size for size, _ in batches[-2:]] == [32, 7]
    assert batches[-1][1] < batches[-2][1] - 1
    assert f"423 samples, loss {batches[-2][1]:.3f}, " in capsys.readouterr().err


def test_saving_and_evaluating_are_no_part_of_the_rates(tmp_path, monkeypatch):
    """An evaluation of half a second: the same samples per second as without, and all of it in the run's seconds."""
    monkeypatch.setattr(contrastive.evaluation, "evaluate", lambda *args: time.sleep(0.5))
    pretrain(tiny_config(tmp_path, evaluate=EVALUATE | {"every": 64}))
    told = lines(tmp_path)
    assert told[-1]["seconds"] - told[0]["seconds"] > 6 * 0.5
    trained = sum(line["batch"] / line["samples_per_second"] for line in told[1:])
    assert trained < told[-1]["seconds"] - told[0]["seconds"] - 6 * 0.5 + 0.2


def test_a_logger_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="loggers: wandb is not installed here: pip install wandb"):
        pretrain(tiny_config(tmp_path, loggers=("wandb",)))


EVALUATE = {"every": 200, "datasets": ["digits"], "tasks": ["classification"]}


def test_evaluation_while_training_gives_a_curve_and_leaves_the_weights(finished, tmp_path, capsys):
    config = tiny_config(tmp_path / "run", ema=0.9, evaluate=EVALUATE)
    path = pretrain(config)
    assert_equal_weights(weights(path), weights(finished[1]))
    table = clipeval.read_results(tmp_path / "run/results")
    curve = table[table["metric"] == "acc1"]
    assert curve["samples_seen"].tolist() == [224, 416, 423]
    assert curve["from_scratch_filter"].notna().tolist() == [True, True, False]
    again = clipeval.run(str(path), "digits", "classification", out=tmp_path / "own", workers=0)
    assert again[again["metric"] == "acc1"]["value"].tolist() == curve["value"].tolist()[-1:]
    assert "digits acc1" in capsys.readouterr().err
    ledger = (tmp_path / "run/results/ledger.jsonl").read_text()
    assert pretrain(config) == path
    assert (tmp_path / "run/results/ledger.jsonl").read_text() == ledger


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(tmp_path, monkeypatch):
    config = tiny_config(tmp_path / "run", evaluate=EVALUATE)

    def killed(*args):
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(contrastive.evaluation, "evaluate", killed)
        with pytest.raises(Kill):
            pretrain(config)
    pretrain(config)
    table = clipeval.read_results(tmp_path / "run/results")
    assert table[table["metric"] == "acc1"]["samples_seen"].tolist() == [224, 416, 423]


def test_what_cannot_be_evaluated_is_said(tmp_path, capsys):
    for entry, message in (
        (EVALUATE | {"datasets": ["digit"]}, "digit"),
        (EVALUATE | {"tasks": ["x"]}, "'x' is not a task"),
    ):
        with pytest.raises(UsageError, match=message):
            pretrain(tiny_config(tmp_path / "wrong", evaluate=entry))
    absent = EVALUATE | {"datasets": [f"folder:{tmp_path}/none"]}
    pretrain(tiny_config(tmp_path / "run", evaluate=absent))
    assert "none" in capsys.readouterr().err
