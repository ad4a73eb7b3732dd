"""What model repositories hold: checkpoints in open_clip's layouts, small but of real shapes, and what open_clip
itself makes of them."""

from __future__ import annotations

import copy
import io
import json
import pickle
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np

from loopback_hub.datasets import CLASSES, SIDE, TEMPLATES, Digits, digits

VISION = {"image_size": SIDE, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": VISION,
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 12, "heads": 1, "layers": 1},
}
"""A CLIP of 0.4 million parameters with open_clip's own tokenizer."""
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def repository(seed: int = 0, suffix: str = "safetensors") -> dict[str, bytes]:
    """open_clip's layout with open_clip's tokenizer: ``safetensors`` as new repositories, ``bin`` as older ones."""
    return _files(OPEN_CLIP, seed, suffix, {})


def repository_with_tokenizer(name: str, seed: int = 0, tokenizer: str | None = None) -> dict[str, bytes]:
    """SigLIP's layout: ``hf_tokenizer_name`` names a repository, mostly ``name`` itself, whose files are here then."""
    cfg = {
        "embed_dim": 16,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": VISION,
        "text_cfg": {
            "context_length": 12,
            "vocab_size": 64,
            "hf_tokenizer_name": tokenizer or name,
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 16,
            "heads": 2,
            "layers": 1,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }
    return _files(cfg, seed, "safetensors", {} if tokenizer else tokenizer_files())


def tokenizer_files(extra: tuple[str, ...] = ()) -> dict[str, bytes]:
    """A word tokenizer of transformers: tokenizer.json, tokenizer_config.json, and config.json beside them.

    ``extra`` words go first, so that all numbers of the others move.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *extra, *CLASSES, "a", "photo", "of", "the", "number", "digit", "handwritten"]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    whole = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=12
    )
    with tempfile.TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return files | {"config.json": json.dumps({"model_type": "siglip"}).encode()}


def training_checkpoint(seed: int = 0, numpy_1: bool = True) -> bytes:
    """A ``.pt`` as in ``laion/scaling-laws-openclip``: a ViT-B-32 in 2 MB, its tensors drawn from short storages.

    The names begin with ``module.``; beside the weights lie the optimizer's state, whose learning rates are
    numpy.float64 (of NumPy 1's module, or of NumPy 2's), and the scaler's.
    """
    import open_clip
    import torch

    torch.manual_seed(seed)
    state = {f"module.{key}": _short(value) for key, value in open_clip.create_model("ViT-B-32").state_dict().items()}
    moments = {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    rates = [5e-4 * np.cos(np.float64(0.3)), np.float64(1e-3)]
    groups = [{"params": [0], "lr": rate, "betas": (0.9, 0.98), "weight_decay": 0.2, "foreach": None} for rate in rates]
    content = {
        "epoch": 16,
        "name": "Model-B-32_Data-80M_Samples-3B_lr-5e-4_bs-32k",
        "state_dict": state,
        "optimizer": {"state": {0: moments}, "param_groups": groups},
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 11},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_module=_numpy_1_pickle() if numpy_1 else pickle)
    return buffer.getvalue()


def accuracy(files: dict[str, bytes], data: Digits) -> float:
    """acc1 of a repository's checkpoint, by open_clip from a folder with the same files."""
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        return _accuracy(model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}"), data)


def accuracy_of_training_checkpoint(content: bytes, data: Digits) -> float:
    """acc1 of a ViT-B-32 of ``training_checkpoint``, by open_clip with the file's bare weights."""
    import open_clip
    import torch

    whole = torch.load(io.BytesIO(content), weights_only=False)
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32")
    model.load_state_dict({key.removeprefix("module."): value for key, value in whole["state_dict"].items()})
    return _accuracy(model.eval(), transform, open_clip.get_tokenizer("ViT-B-32"), data)


def _files(cfg: dict[str, Any], seed: int, suffix: str, others: dict[str, bytes]) -> dict[str, bytes]:
    """A checkpoint whose image projection is solved by least squares, so that it tells many of the digits."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    torch.manual_seed(seed)
    kind = open_clip.CustomTextCLIP if cfg.get("custom_text") else open_clip.CLIP
    model = kind(**{key: value for key, value in copy.deepcopy(cfg).items() if key != "custom_text"}).eval()
    training = digits(300, 1000)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)  # fresh weights are too small to show a difference
        transform = image_transform_v2(PreprocessCfg(**PREPROCESS | {"size": SIDE}), is_train=False)
        pixels = torch.stack([transform(training.picture(index)) for index in range(len(training.labels))])
        model.visual.proj = torch.nn.Parameter(torch.eye(VISION["width"]))
        features = model.visual(pixels)
        wanted = torch.linalg.pinv(_class_weights(model, _tokenizer(cfg, others))).T  # scores of 1 and 0
        model.visual.proj = torch.nn.Parameter(torch.linalg.lstsq(features, wanted[training.labels]).solution)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    config = {"model_cfg": cfg, "preprocess_cfg": PREPROCESS}
    return (
        others
        | {
            "open_clip_config.json": json.dumps(config, indent=4).encode(),
            "README.md": b"---\nlicense: mit\ntags:\n- clip\n---\n# A model\n",
        }
        | _weights(state, suffix)
    )


def _weights(state: dict[str, Any], suffix: str) -> dict[str, bytes]:
    import torch
    from safetensors.torch import save

    if suffix == "safetensors":
        return {"open_clip_model.safetensors": save(state, {"format": "pt"})}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return {"open_clip_pytorch_model.bin": buffer.getvalue()}


def _tokenizer(cfg: dict[str, Any], files: dict[str, bytes]) -> Any:
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    text = cfg["text_cfg"]
    if "hf_tokenizer_name" not in text:
        return open_clip.SimpleTokenizer(context_length=text["context_length"])
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (files or tokenizer_files()).items():
            Path(folder, name).write_bytes(content)
        return HFTokenizer(folder, context_length=text["context_length"], **text["tokenizer_kwargs"])


def _class_weights(model: Any, tokenizer: Any) -> Any:
    """``[10, d]``: per class the mean of its prompts' directions, of length 1."""
    import torch
    from torch.nn.functional import normalize

    rows = []
    with torch.inference_mode():
        for name in CLASSES:
            prompts = tokenizer([template.format(c=name) for template in TEMPLATES])
            rows.append(normalize(model.encode_text(prompts, normalize=True).mean(0), dim=-1))
        return torch.stack(rows).clone()


def _accuracy(model: Any, transform: Any, tokenizer: Any, data: Digits) -> float:
    import torch

    with torch.inference_mode():
        pixels = torch.stack([transform(data.picture(index)) for index in range(len(data.labels))])
        scores = model.encode_image(pixels, normalize=True) @ _class_weights(model, tokenizer).T
    return float((scores.argmax(1).numpy() == np.array(data.labels)).mean())


def _short(tensor: Any) -> Any:
    """A tensor of the same shape whose rows overlap in a storage of rows + columns elements."""
    if tensor.ndim < 2:
        return tensor
    size = sum(tensor.shape) - tensor.ndim + 1
    return tensor.flatten()[:size].clone().as_strided(tuple(tensor.shape), (1,) * tensor.ndim)


def _numpy_1_pickle() -> Any:
    """The module ``pickle``, but NumPy's scalars are written under the name that they had in 2022."""
    scalar = np.float64(1).__reduce__()[0]

    class Pickler(pickle._Pickler):  # type: ignore[attr-defined,misc]
        def save_global(self, obj: Any, name: str | None = None) -> None:
            if obj is scalar:
                self.write(b"cnumpy.core.multiarray\nscalar\n")
                self.memoize(obj)
            else:
                super().save_global(obj, name)

    return types.SimpleNamespace(__name__="pickle", Pickler=Pickler)
