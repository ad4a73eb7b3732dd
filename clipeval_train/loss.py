"""The contrastive loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def info_nce(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The symmetric InfoNCE loss of CLIP (Radford et al. 2021, arXiv 2103.00020, figure 3): a scalar.

    ``images`` and ``texts`` are embeddings ``[n, d]``, normalised here; row i of one belongs to row i of the other.
    ``scale`` is the inverse temperature. Computed in fp32 (fp64 for fp64 input) and to be called outside autocast: at
    scale 100, logits in bf16 change the gradient by percents.
    """
    dtype = torch.promote_types(images.dtype, torch.float32)
    images, texts = F.normalize(images.to(dtype), dim=-1), F.normalize(texts.to(dtype), dim=-1)
    logits = scale * images @ texts.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
