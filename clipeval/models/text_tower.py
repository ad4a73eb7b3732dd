"""Causal text towers that read one position: there the tokens after it change nothing and need not be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class CausalTextTower:
    """The text tower of an open_clip model that attends causally and pools at the end of the text.

    ``module`` holds the tower's parts; ``pool_type`` is ``argmax`` (the end-of-text token has the highest number) or
    ``eos`` (it is ``eos_id``).
    """

    def __init__(self, module: Any, pool_type: str, eos_id: int) -> None:
        self._module = module
        self._pool_type = pool_type
        self._eos_id = eos_id

    def ends(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n]``: the position that is read for each row of ``tokens`` ``[n, L]``."""
        if self._pool_type == "argmax":
            return tokens.argmax(dim=-1)
        return (tokens == self._eos_id).int().argmax(dim=-1)

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, L]`` tokens with ``L > max(ends)`` -> ``[n, embed_dim]``: what the full context would give.

        Positions up to ``ends`` attend to nothing after them, so the tower runs on the first L positions only.
        """
        import torch

        module, length = self._module, tokens.shape[1]
        dtype = module.transformer.get_cast_dtype()
        embedded = module.token_embedding(tokens).to(dtype) + module.positional_embedding[:length].to(dtype)
        hidden = module.transformer(embedded, attn_mask=module.attn_mask[:length, :length])
        pooled = module.ln_final(hidden[torch.arange(len(tokens), device=hidden.device), self.ends(tokens)])
        projection = module.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
