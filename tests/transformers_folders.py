"""Tiny checkpoints of transformers, written by its own classes: models with random weights, processors, tokenizers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as tf

WORDS = [
    "a",
    "photo",
    "of",
    "the",
    "cat",
    "dog",
    "digit",
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "blurry",
    "small",
    ".",
    ",",
    "!",
]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_CROP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


@dataclass(frozen=True)
class Family:
    """How a tiny checkpoint of one ``model_type`` is made. ``context`` is the tokens of a text."""

    config: Callable[[Any], Any]
    model: Any
    images: Callable[[], Any]
    processor: Any
    tokenizer: Callable[[Path], Any]
    context: int


def text(tokenizer: Any, **settings: Any) -> dict[str, Any]:
    return {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 20,
    } | settings


def _bert(place: Path) -> Any:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{x}" for x in LETTERS)]
    (place / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n", "utf-8")
    return tf.BertTokenizer(str(place / "vocab.txt"), model_max_length=20)


def _bpe(place: Path) -> Any:
    signs = [chr(code) for code in range(33, 127)]
    pieces = [*signs, *(f"{sign}</w>" for sign in signs), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    (place / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (place / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    return tf.CLIPTokenizer(vocab=str(place / "vocab.json"), merges=str(place / "merges.txt"), model_max_length=20)


def _sentencepiece(place: Path) -> Any:
    import sentencepiece

    corpus = place / "corpus.txt"
    corpus.write_text("\n".join(" ".join(WORDS[k:] + WORDS[:k]) for k in range(len(WORDS))) + "\n" + "".join(LETTERS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(place / "spiece"),
        vocab_size=80,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    corpus.unlink()
    (place / "spiece.vocab").unlink()
    tokens = dict.fromkeys(("pad_token", "eos_token"), "</s>") | {"unk_token": "<unk>"}
    # as published: the tower sees pads, and nothing tells it which they are
    return tf.SiglipTokenizer(
        str(place / "spiece.model"), model_max_length=16, model_input_names=["input_ids"], **tokens
    )


def _gemma(place: Path) -> Any:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS, *"0123456789.,!", "ca", "cat"]
    numbers = {piece: number for number, piece in enumerate(pieces)}
    return tf.Siglip2Tokenizer(
        vocab=numbers, merges=[("c", "a"), ("ca", "t")], model_max_length=16, padding_side="right"
    )


def _roberta(place: Path) -> Any:
    special = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    words = [*((f"▁{word}", -2.0) for word in WORDS), *((letter, -5.0) for letter in LETTERS), ("▁", -4.0)]
    return tf.XLMRobertaTokenizer(vocab=list(dict([*special, *words]).items()), model_max_length=20)


_ROBERTA = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


def _clip(tokenizer: Any) -> Any:
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return tf.CLIPConfig(text_config=text(tokenizer, **special), vision_config=VISION, projection_dim=16)


def _siglip(tokenizer: Any) -> Any:
    settings = text(tokenizer, max_position_embeddings=16, projection_size=32, bos_token_id=0, eos_token_id=1)
    return tf.SiglipConfig(text_config=settings | {"pad_token_id": 1}, vision_config=VISION)


def _siglip2(tokenizer: Any) -> Any:
    settings = text(tokenizer, max_position_embeddings=16, projection_size=32, bos_token_id=2, eos_token_id=1)
    vision = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": 16}
    return tf.Siglip2Config(text_config=settings | {"pad_token_id": 0}, vision_config=vision)


def _chinese_clip(tokenizer: Any) -> Any:
    return tf.ChineseCLIPConfig(text_config=text(tokenizer), vision_config=VISION, projection_dim=16)


def _altclip(tokenizer: Any) -> Any:
    settings = text(tokenizer, max_position_embeddings=22, project_dim=16, **_ROBERTA)
    return tf.AltCLIPConfig(text_config=settings, vision_config=VISION, projection_dim=16)


def _metaclip_2(tokenizer: Any) -> Any:
    return tf.MetaClip2Config(text_config=text(tokenizer, **_ROBERTA), vision_config=VISION, projection_dim=16)


FAMILIES = {
    "clip": Family(_clip, tf.CLIPModel, lambda: tf.CLIPImageProcessor(**_CROP), tf.CLIPProcessor, _bpe, 20),
    "siglip": Family(
        _siglip,
        tf.SiglipModel,
        lambda: tf.SiglipImageProcessor(size={"height": 32, "width": 32}),
        tf.SiglipProcessor,
        _sentencepiece,
        16,
    ),
    "siglip2": Family(
        _siglip2,
        tf.Siglip2Model,
        lambda: tf.Siglip2ImageProcessor(patch_size=8, max_num_patches=24),
        tf.Siglip2Processor,
        _gemma,
        16,
    ),
    "chinese_clip": Family(
        _chinese_clip,
        tf.ChineseCLIPModel,
        lambda: tf.ChineseCLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
        tf.ChineseCLIPProcessor,
        _bert,
        20,
    ),
    "altclip": Family(
        _altclip, tf.AltCLIPModel, lambda: tf.CLIPImageProcessor(**_CROP), tf.AltCLIPProcessor, _roberta, 20
    ),
    "metaclip_2": Family(
        _metaclip_2, tf.MetaClip2Model, lambda: tf.CLIPImageProcessor(**_CROP), tf.CLIPProcessor, _roberta, 20
    ),
}


def write(
    name: str, place: Path, seed: int = 0, dtype: torch.dtype | None = None, whole: bool = False, **saved: Any
) -> Path:
    """A folder as transformers saves it, with weights far enough apart that wrong ones show; ``whole``: in the default
    size of its class, with a small vocabulary."""
    family = FAMILIES[name]
    place.mkdir(parents=True)
    torch.manual_seed(seed)
    tokenizer = family.tokenizer(place)
    config = family.config(tokenizer)
    if whole:
        _enlarge(config)
    model = family.model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * (0.02 if whole else 0.2))
    with quiet():
        (model.to(dtype) if dtype else model).save_pretrained(place, **saved)
        squash = {"size": {"height": 224, "width": 224}, "do_center_crop": False} if name == "chinese_clip" else {}
        images = type(family.images())(**squash) if whole else family.images()
        family.processor(image_processor=images, tokenizer=tokenizer).save_pretrained(place)
    return place


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")


def _enlarge(config: Any) -> None:
    """All sizes as the classes have them by default."""
    default = type(config)()
    for tower in ("text_config", "vision_config"):
        ours, theirs = getattr(config, tower), getattr(default, tower)
        for key in (*_SIZES, "num_patches", "projection_size", "project_dim"):
            if hasattr(ours, key) and hasattr(theirs, key):
                setattr(ours, key, getattr(theirs, key))
    if hasattr(default, "projection_dim"):
        config.projection_dim = default.projection_dim


def bert_files() -> dict[str, bytes]:
    """A tokenizer of BERT as its repositories have it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _bert(place).save_pretrained(place)
        (place / "config.json").write_text(json.dumps({"model_type": "bert"}))
        return {path.name: path.read_bytes() for path in place.iterdir()}


class quiet:
    """Without progress bars and warnings of transformers."""

    def __enter__(self) -> None:
        tf.utils.logging.set_verbosity_error()
        tf.utils.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        tf.utils.logging.enable_progress_bar()


def theirs(place: Path, images: list[Any], texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of images and texts by transformers' own model and processor, one image and all texts at a time."""
    with quiet():
        model = tf.AutoModel.from_pretrained(place, dtype=torch.float32).eval()
        processor = tf.AutoProcessor.from_pretrained(place)
    kind = model.config.model_type
    whole = kind.startswith("siglip")
    with torch.inference_mode():
        found = []
        for image in images:
            inputs = processor.image_processor(images=[image], return_tensors="pt")
            found.append(model.get_image_features(**inputs).pooler_output)
        words = processor.tokenizer(
            texts,
            padding="max_length" if whole else True,
            max_length=FAMILIES[kind].context,
            truncation=True,
            return_tensors="pt",
        )
        given = {"input_ids": words["input_ids"]} | ({} if whole else {"attention_mask": words["attention_mask"]})
        return torch.cat(found), model.get_text_features(**given).pooler_output
