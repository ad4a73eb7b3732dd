"""The trainer inside Ray Train, whose process group it uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tiny_run import assert_weights_close, tiny_config

from clipeval_train import checkpoint
from clipeval_train.loop import pretrain

_PROGRAM = """
import json, sys
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def train(settings):
    from clipeval_train.config import PretrainConfig
    from clipeval_train.loop import pretrain

    pretrain(PretrainConfig.model_validate(settings))

ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False)
scaling, run = ScalingConfig(num_workers=2, use_gpu=False), RunConfig(storage_path=sys.argv[1])
settings = json.loads(sys.argv[2])
TorchTrainer(train, train_loop_config=settings, scaling_config=scaling, run_config=run).fit()
"""
"""In a process of its own: Ray leaves something behind in one that has used it before."""


def test_two_workers_of_a_torch_trainer_train_what_one_process_does(tmp_path):
    """A step moves a weight by up to 1e-2; two processes round differently."""
    settings = json.dumps(tiny_config(tmp_path / "together", samples=416).model_dump(mode="json"))
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path / "ray"), settings]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = checkpoint.load(checkpoint.newest(tmp_path / "together"))
    alone = checkpoint.load(pretrain(tiny_config(tmp_path / "alone", samples=416)))
    assert found["metadata"]["samples_seen"] == 416
    assert_weights_close(found["state_dict"], alone["state_dict"], atol=1e-3)
