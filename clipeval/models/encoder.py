"""A loaded model that embeds images and texts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import precision as precisions
from clipeval.errors import ModelError, first_line, foreign
from clipeval.identity import CheckpointIdentity
from clipeval.models import stream
from clipeval.models.base import ModelInfo, Preprocessing, Tokenized
from clipeval.models.compiling import Compiler
from clipeval.models.text_tower import CausalTextTower

if TYPE_CHECKING:
    import torch
    from PIL import Image


class PixelTransform:
    """The part of a model's inference transform that works on PIL images: resize, crop, RGB."""

    def __init__(self, steps: Sequence[Callable[[Image.Image], Image.Image]]) -> None:
        self._steps = steps

    def __call__(self, image: Image.Image) -> np.ndarray:
        """``[H, W, 3]`` uint8."""
        from clipeval.models import stripes

        return np.array(stripes.transformed(image, self._steps))


def _is_plain(text: str) -> bool:
    return text.isascii() and "&" not in text


class OpenClipEncoder:
    """An open_clip model; ``base.Encoder`` says what its attributes and methods mean.

    ``model`` is in inference mode on ``device``; ``text_tower`` is given where texts may be trimmed; ``vocab_size`` is
    how many tokens the model has, where that is known; ``compiled`` whether torch.compile makes code of the towers.
    """

    remarks: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        model: Any,
        text_tower: CausalTextTower | None,
        tokenizer: Any,
        pixels: PixelTransform,
        preprocessing: Preprocessing,
        info: ModelInfo,
        embed_dim: int,
        identity: CheckpointIdentity,
        device: str,
        precision: str,
        vocab_size: int | None = None,
        compiled: bool = False,
    ) -> None:
        import torch

        self.info = info
        self.preprocessing = preprocessing
        self.pixels = pixels
        self.record_shape: tuple[int, ...] = (*preprocessing.size, 3)
        self.pixel_settings = preprocessing.spatial_key()
        self.embed_dim = embed_dim
        self.context_length: int = tokenizer.context_length
        self.text_trimmable = text_tower is not None
        self.device = device
        self.identity = identity
        self.precision = precision
        self._model = model
        self._text_tower = text_tower
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._dtype = precisions.weights_dtype(precision)
        self._code = Compiler(info.model, compiled)
        # On the device, as a division by a Python number may become a multiplication there, and round differently.
        numbers = torch.tensor([[255.0] * 3, preprocessing.mean, preprocessing.std], device=device)
        self._white, self._mean, self._std = numbers.view(3, 3, 1, 1).unbind()

    @property
    def model(self) -> Any:
        """The open_clip model. Whoever changes its weights must not store embeddings: ``identity`` stays."""
        return self._model

    def with_own_model(self) -> OpenClipEncoder:
        """The same checkpoint around a copy of the model, for a trainer to change its image tower."""
        twin = copy.copy(self)
        twin._model = copy.deepcopy(self._model)
        return twin

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """``[n, context_length]`` int64 on the CPU. Raises ModelError for a token that the model does not have."""
        # one of transformers is what its files say, and may lack what it needs
        with foreign(lambda error: ModelError(f"{self.info.model}: its tokenizer fails: {first_line(error):.300}")):
            tokens = self._tokenizer(texts)
        if self._vocab_size is not None and tokens.numel() and (highest := int(tokens.max())) >= self._vocab_size:
            raise ModelError(
                f"{self.info.model}: its tokenizer gives token {highest}, but its text tower has {self._vocab_size}. "
                "They do not belong together."
            )
        return tokens

    def tokenized(self, texts: list[str]) -> Tokenized:
        """``texts`` as ``tokenize`` makes them, a batch cut to its longest text where that is exact."""
        tokens = self.tokenize(texts)
        lengths = self.token_lengths(tokens)
        return Tokenized(lengths, lambda rows: self.encode_tokens(tokens[rows][:, : int(lengths[rows].max())]))

    def are_cut(self, texts: list[str]) -> np.ndarray:
        """``[n]`` bool: which texts have more tokens than the context holds. Raises ModelError as ``tokenize``."""
        # A token is a byte at least, of plain texts, and two more mark the ends.
        long = [row for row, text in enumerate(texts) if len(text) + 3 > self.context_length or not _is_plain(text)]
        cut = np.zeros(len(texts), dtype=bool)
        if long:
            tokens, blank = self.tokenize([texts[row] for row in long]), self.tokenize([""])
            end_in_blanks = (tokens[:, -2:] == blank[:, -2:]).all(1).tolist()
            full = [row for row, ends in zip(long, end_in_blanks, strict=True) if not ends]
            cut[full] = self._lose_tokens([texts[row] for row in full])
        return cut

    def _lose_tokens(self, texts: list[str]) -> np.ndarray:
        """Whether one more place in the context shows another token: in it, or where the text ended without it."""
        if not texts:
            return np.zeros(0, dtype=bool)
        shown = self._tokenizer(texts)
        more, blank = (self._tokenizer(these, context_length=self.context_length + 1) for these in (texts, [""]))
        in_it, before = more[:, -1] != blank[0, -1], (more[:, :-1] != shown).any(1)
        return (in_it | before).numpy()

    def token_lengths(self, tokens: torch.Tensor) -> np.ndarray:
        """``[n]`` tokens that matter per text."""
        if self._text_tower is None:
            return np.full(len(tokens), self.context_length)
        return self._text_tower.ends(tokens).numpy() + 1

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[n, H, W, 3]`` uint8 -> ``[n, embed_dim]`` float32 on the device."""
        import torch

        with precisions.computing(self.precision, self.device):
            images = stream.sent(pixels, self.device).permute(0, 3, 1, 2)
            images = images.to(torch.float32, memory_format=torch.contiguous_format)
            images = images.div_(self._white).sub_(self._mean).div_(self._std)  # as ToTensor and Normalize do
            return self._code(self._model.encode_image)(images.to(self._dtype)).float()

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, L]`` int64 -> ``[n, embed_dim]`` float32 on the device; L < context_length where trimmable."""
        with precisions.computing(self.precision, self.device):
            tokens = stream.sent(tokens, self.device)
            if self._text_tower is not None and tokens.shape[1] < self.context_length:
                return self._code(self._text_tower.encode, axes=2)(tokens).float()
            return self._code(self._model.encode_text)(tokens).float()
