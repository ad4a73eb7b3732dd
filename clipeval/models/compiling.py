"""torch.compile around a tower: one code for any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clipeval.errors import ModelError, UsageError, foreign
from clipeval.precision import exactness

NAME = "compiled"
"""What the encoder's version has behind it where towers are compiled: fused kernels round differently, so embeddings of
both kinds do not mix. It is none of the precisions: a measurement with it replaces one without."""


def version(encoder: str, is_compiled: bool) -> str:
    """The version of an encoder with its towers compiled or not."""
    return f"{encoder}, {NAME}" if is_compiled else encoder


def require_compiler(device: str) -> None:
    """Raises UsageError where torch cannot compile for ``device``, with its reason."""
    import torch

    try:
        with exactness("ieee"):
            torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # a compiler that is missing, old or broken, in the words of whatever met it
        raise UsageError(
            f"--compile: torch.compile does not work here for {device}: {_reason(error):.300}. Leave --compile out."
        ) from error


class Compiler:
    """Gives functions of tensors back as torch's code of them where ``is_on``, compiled when it is first called."""

    def __init__(self, model: str, is_on: bool) -> None:
        """``model`` names the checkpoint in messages."""
        self._model, self._is_on = model, is_on
        self._code: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, function: Callable[..., Any], axes: int = 1) -> Callable[..., Any]:
        """``function``, whose tensors may have any length along the first ``axes`` axes without another compilation
        (but for a length of 1). Calls raise ModelError where its code cannot be compiled."""
        if not self._is_on:
            return function
        if function not in self._code:
            self._code[function] = self._compiled(function, axes)
        return self._code[function]

    def _compiled(self, function: Callable[..., Any], axes: int) -> Callable[..., Any]:
        import torch

        fast = torch.compile(function)

        def told(error: Exception) -> ModelError:
            return ModelError(f"{self._model}: fails with --compile: {_reason(error):.300}. Leave --compile out.")

        def call(*tensors: torch.Tensor, **named: torch.Tensor) -> Any:
            for tensor in (*tensors, *named.values()):
                for axis in range(min(axes, tensor.ndim)):
                    torch._dynamo.maybe_mark_dynamic(tensor, axis)
            with foreign(told):
                return fast(*tensors, **named)

        return call


def _reason(error: Exception) -> str:
    """Torch's reason, without its advice and without the name of what met it."""
    said = " ".join(str(error).strip().split("\n\n")[0].split())
    return said.removeprefix("backend='inductor' raised:").strip() or type(error).__name__
