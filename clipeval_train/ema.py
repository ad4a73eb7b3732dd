"""A running average of the weights."""

from __future__ import annotations

import torch


class Ema:
    """``average <- decay * average + (1 - decay) * weights`` after every step (Polyak & Juditsky 1992).

    It begins at the weights it is made from, and covers everything in the module's ``state_dict``; what is not floating
    point is copied.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self._average = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Take in the module's weights after a step."""
        weights = module.state_dict()
        real = [name for name, tensor in self._average.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self._average[name] for name in real], [weights[name] for name in real], 1 - self.decay)
        for name in self._average.keys() - set(real):
            self._average[name].copy_(weights[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averaged weights, by the module's names."""
        return self._average

    @torch.no_grad()
    def load_state_dict(self, average: dict[str, torch.Tensor]) -> None:
        """Go on from a saved average."""
        for name, tensor in self._average.items():
            tensor.copy_(average[name])
