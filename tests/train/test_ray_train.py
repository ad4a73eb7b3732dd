"""The trainer inside Ray Train, whose process group it uses."""

from __future__ import annotations

import pytest
import torch
from tiny_run import tiny_config

from clipeval_train import checkpoint
from clipeval_train.loop import pretrain

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of every kind


def test_two_workers_of_a_torch_trainer_train_what_one_process_does(tmp_path, monkeypatch):
    """A step moves a weight by up to 1e-2; two processes round differently."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    together = tiny_config(tmp_path / "together", samples=416)

    def train(settings):
        from clipeval_train.config import PretrainConfig
        from clipeval_train.loop import pretrain

        pretrain(PretrainConfig.model_validate(settings))

    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        scaling = ScalingConfig(num_workers=2, use_gpu=False)
        run = RunConfig(storage_path=str(tmp_path / "ray"))
        trainer = TorchTrainer(train, train_loop_config=together.model_dump(), scaling_config=scaling, run_config=run)
        trainer.fit()
    finally:
        ray.shutdown()
    found = checkpoint.load(checkpoint.newest(tmp_path / "together"))
    alone = checkpoint.load(pretrain(tiny_config(tmp_path / "alone", samples=416)))
    assert found["metadata"]["samples_seen"] == 416
    for key, tensor in alone["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][key], tensor, rtol=0, atol=1e-3)
