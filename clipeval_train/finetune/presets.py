"""Published recipes, as dictionaries of configuration keys. A file's own keys win."""

from __future__ import annotations

from typing import Any

_ILHARCO2022: dict[str, Any] = {
    "head": "zeroshot",
    "train_head": False,
    "iterations": 2000,
    "batch_size": 128,
    "lr": 1e-5,
    "warmup": 200,
    "weight_decay": 0.1,
    "grad_clip": 1.0,
    "crop": (0.9, 1.0),
}

PRESETS: dict[str, dict[str, Any]] = {
    "ilharco2022": _ILHARCO2022,
    "joint8": {
        **_ILHARCO2022,
        "data": ("cars", "vtab/dtd", "vtab/eurosat", "gtsrb", "mnist", "vtab/resisc45", "sun397", "vtab/svhn"),
        "hold_out": 0.1,
    },
    "wise-ft": {
        "head": "zeroshot",
        "train_head": True,
        "epochs": 10,
        "batch_size": 512,
        "lr": 3e-5,
        "warmup": 500,
        "weight_decay": 0.1,
        "grad_clip": 1.0,
        "crop": (0.9, 1.0),
    },
    "imagenet": {
        "data": ("imagenet1k",),
        "head": "zeroshot",
        "train_head": True,
        "epochs": 60,
        "batch_size": 1024,
        "lr": 1e-3,
        "min_lr": 5e-7,
        "warmup": 0.1,
        "cooldown": 1 / 6,
        "weight_decay": 0.05,
        "layer_decay": 0.65,
        "drop_path": 0.1,
        "grad_clip": 3.0,
        "label_smoothing": 0.1,
        "ema": 0.9998,
        "crop": (0.08, 1.0),
        "flip": 0.5,
        "randaugment": "rand-m8-inc1-mstd101",
    },
}
"""``ilharco2022``: Patching open-vocabulary models by interpolating weights (arXiv 2208.05592), one or more data sets.

``joint8``: the same on eight data sets at once, one batch of each in turn, as in Cherti et al. 2023 (arXiv 2212.07143,
section 4.4 and B.2.2). A tenth of each training split is kept back for ``clipeval-train patch`` to choose alpha on.

``wise-ft``: Robust fine-tuning of zero-shot models (Wortsman et al. 2022, arXiv 2109.01903).

``imagenet``: the recipe of timm's ``vit_base_patch32_clip_224.laion2b_ft_in1k``: 50 epochs of cosine and 10 at the
lowest rate, layer decay 0.65, drop path 0.1, RandAugment ``rand-m8-inc1-mstd101``, gradient clip 3, EMA 0.9998, no
mixup. For ViT-L-14 the same source has lr 6e-5, layer_decay 0.8, ema 0.9997, rand-m9-n3. Not published with the
weights, and chosen here: warm-up, weight decay, label smoothing, crop. timm puts a fresh linear layer on the tower's
unprojected output; here the head is on the normalised embedding and starts from the class names.
"""
