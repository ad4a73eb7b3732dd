"""What a run begins with: an architecture, and weights that are drawn or those of a checkpoint of open_clip."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from clipeval import models
from clipeval.errors import UsageError, first_line, foreign
from clipeval.models import library
from clipeval.models.checkpoint import Checkpoint
from clipeval_train import model
from clipeval_train.config import PretrainConfig
from clipeval_train.lineage import ancestor, one_checkpoint

_TEMPERATURE = ("logit_scale", "logit_bias")
_TIMM_POSITIONS = "visual.trunk.pos_embed"


class Initial:
    """The beginning that a configuration asks for. With ``init`` its checkpoint is found, and read when it is needed.

    Raises UsageError for a model or a checkpoint that cannot be trained, ModelError.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self._config = config
        self._checkpoint: Checkpoint | None = None
        own: dict[str, Any] | None = None
        preprocessing: dict[str, Any] | None = None
        name = config.arch
        if config.init is not None:
            self._checkpoint = models.open_trainable(one_checkpoint(config.init, "init"))
            described = self._checkpoint.description
            own, preprocessing = described.model_cfg, described.preprocess_cfg
            name = self._checkpoint.info.arch if config.model is None and name == "custom" else name
        self.architecture = model.resolve(config.model, name or "custom", config.loss, own, preprocessing)

    @property
    def facts(self) -> dict[str, Any]:
        """Metadata on the checkpoint that the run began with; none where the weights were drawn."""
        if self._checkpoint is None:
            return {}
        info = self._checkpoint.info
        return ancestor(info, "contrastive", f"began with {info.model}")

    def build(self) -> Any:
        """The model in fp32 on the CPU, drawn anew, or with the checkpoint's weights: position embeddings stretched
        where image or text are of another size. What ``lock`` names is not trained, and computes as in inference."""
        clip = model.build(self.architecture, self._config.seed)
        if self._checkpoint is not None:
            tensors = self._weights(self._checkpoint, clip)
            with foreign(lambda error: self._misfit(error)):
                library.load_weights(clip, tensors, self._checkpoint.path)
        for name, parameter in clip.named_parameters():
            parameter.requires_grad_(_tower(name) != self._config.lock)
        for name, module in clip.named_children():
            if self._config.lock and _tower(name) == self._config.lock:
                module.eval()
        return clip

    def _weights(self, checkpoint: Checkpoint, clip: nn.Module) -> dict[str, torch.Tensor]:
        encoder = models.load_trainable(checkpoint, device="cpu", precision="fp32")
        tensors: dict[str, torch.Tensor] = encoder.model.state_dict()
        wanted = clip.state_dict()
        if "logit_bias" in wanted:  # a sigmoid loss from a model that had none begins where its own would
            tensors.setdefault("logit_bias", wanted["logit_bias"])
        elif self._config.model is not None:
            tensors.pop("logit_bias", None)
        trunk = getattr(clip.visual, "trunk", None)
        positions = tensors.get(_TIMM_POSITIONS)
        if positions is not None and positions.shape != wanted[_TIMM_POSITIONS].shape:
            from timm.layers import resample_abs_pos_embed

            prefix = 0 if getattr(trunk, "no_embed_class", False) else trunk.num_prefix_tokens  # type: ignore[union-attr]
            grid = list(trunk.patch_embed.grid_size)  # type: ignore[union-attr]
            tensors[_TIMM_POSITIONS] = resample_abs_pos_embed(positions, grid, num_prefix_tokens=prefix)
        return tensors

    def _misfit(self, error: Exception) -> UsageError:
        return UsageError(
            f"init: the weights of '{self._config.init}' do not fit the model: {first_line(error):.300}. Leave `model` "
            "out to train the checkpoint's own, or change only its image_size or context_length."
        )


def _tower(name: str) -> str:
    """Whose a parameter or module of a model is: ``image``, ``text``, or empty for the temperature."""
    part = name.split(".")[0]
    return "image" if part == "visual" else "" if part in _TEMPERATURE else "text"
