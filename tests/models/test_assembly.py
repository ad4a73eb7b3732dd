"""Models take the memory of their weights once, and keep them whatever becomes of the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clipeval.models import assembly, weights

BIG = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 4, "width": 1024, "patch_size": 8}} | {
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 4}
}
PEAK = """
import sys
import torch, open_clip, faiss
from clipeval import config, models
from clipeval.models import loader

def mb(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) / 1e3

[small], [big] = (models.resolve([path], config.packaged()) for path in sys.argv[1:])
models.load(small, device="cpu", precision="fp32", offline=True)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = mb("VmRSS")
kept = models.load(big, device="cpu", precision="fp32", offline=True)
print(mb("VmHWM") - before)
"""


def trained(path: Path, model_cfg: dict, **beside: object) -> Path:
    torch.manual_seed(0)
    state = open_clip.CLIP(**model_cfg).state_dict()
    content = {"format": weights.TRAINED_FORMAT, "arch": "", "model_cfg": model_cfg, "preprocess_cfg": {}}
    torch.save(content | {"state_dict": state, "metadata": {}} | beside, path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
def test_the_peak_of_loading_is_about_the_weights(tmp_path: Path) -> None:
    """With an optimizer's moments beside them, too, which are not wanted."""
    small = BIG | {"text_cfg": BIG["text_cfg"] | {"vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}}
    first = trained(tmp_path / "small.pt", small | {"vision_cfg": BIG["vision_cfg"] | {"width": 64, "layers": 1}})
    big = trained(tmp_path / "big.pt", BIG)
    size = big.stat().st_size / 1e6
    assert size > 250
    moments = {name: torch.ones(1 << 26) for name in ("exp_avg", "exp_avg_sq")}
    with_moments = trained(tmp_path / "moments.pt", BIG, optimizer=moments)
    for path in (big, with_moments):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(first), str(path)], capture_output=True, text=True, check=True
        )
        assert float(done.stdout) < 1.2 * size


def test_copies_are_those_of_the_file_and_stay(tmp_path: Path) -> None:
    """Shared, strided, empty and small tensors, and whole numbers; half precision becomes single."""
    torch.manual_seed(0)
    large = torch.randn(3000, 70)
    tensors = {"a": large, "t": large.T, "part": large[7:9], "half": large.half(), "none": torch.zeros(0, 3)}
    tensors |= {"scalar": torch.tensor(2.5), "ids": torch.arange(9000)}
    torch.save(tensors, tmp_path / "w.pt")
    copies = assembly.own_copies(weights.read(tmp_path / "w.pt"), tmp_path / "w.pt")
    with (tmp_path / "w.pt").open("r+b") as file:
        file.write(b"\0" * (tmp_path / "w.pt").stat().st_size)
    for name, tensor in tensors.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert copies[name].dtype == expected.dtype
        assert torch.equal(copies[name], expected)


def test_pages_that_are_given_back_are_read_again(tmp_path: Path) -> None:
    save_file({"a": torch.arange(1 << 18, dtype=torch.float32)}, tmp_path / "w.safetensors")
    mapped = weights.read(tmp_path / "w.safetensors")
    assert assembly._mapped(tmp_path / "w.safetensors")
    for _ in range(2):
        copies = assembly.own_copies(mapped, tmp_path / "w.safetensors")
        assert torch.equal(copies["a"], torch.arange(1 << 18, dtype=torch.float32))


def test_memory_of_no_file_is_left_alone(tmp_path: Path) -> None:
    """Giving that back would make it zero."""
    tensors = {"a": torch.ones(1 << 20)}
    (tmp_path / "w.pt").touch()
    copies = assembly.own_copies(tensors, tmp_path / "w.pt")
    assert tensors["a"].all()
    assert copies["a"].data_ptr() != tensors["a"].data_ptr()


def test_parameters_without_storage_and_buffers_with() -> None:
    with assembly.without_storage():
        module = torch.nn.BatchNorm1d(3)
        shared = torch.nn.Linear(2, 2, bias=False)
    assert {name: p.device.type for name, p in module.named_parameters()} == {"weight": "meta", "bias": "meta"}
    assert module.running_var is not None
    assert module.running_var.tolist() == [1, 1, 1]
    assert shared.bias is None
    assert torch.nn.Linear(2, 2).weight.device.type == "cpu"
