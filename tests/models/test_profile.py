"""Parameters and multiply-accumulates, against hand counts and published profiles."""

from pathlib import Path

import open_clip
import pytest

from clipeval.errors import ModelError
from clipeval.models import profile, zoo

VISION = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16}
TEXT = {"context_length": 24, "vocab_size": 100, "layers": 3, "width": 48, "heads": 4}
TINY = {"embed_dim": 20, "vision_cfg": VISION, "text_cfg": TEXT}


def transformer_macs(tokens: int, width: int, layers: int) -> int:
    """Of one pre-norm transformer: queries, keys and values, two attention products, output, and a 4x MLP."""
    projections = tokens * width * (3 * width + width)
    attention = 2 * tokens * tokens * width
    mlp = 2 * tokens * width * 4 * width
    return layers * (projections + attention + mlp)


def transformer_params(width: int, layers: int) -> int:
    attention = 3 * width * width + 3 * width + width * width + width
    mlp = 8 * width * width + 4 * width + width
    norms = 4 * width
    return layers * (attention + mlp + norms)


def test_a_small_model_counted_by_hand() -> None:
    found = profile.measure(TINY)
    image_macs = 16 * (8 * 8 * 3) * 32 + transformer_macs(16 + 1, 32, 2) + 32 * 20
    text_macs = transformer_macs(24, 48, 3) + 48 * 20
    image_params = 8 * 8 * 3 * 32 + 32 + 17 * 32 + 2 * 32 + transformer_params(32, 2) + 2 * 32 + 32 * 20
    text_params = 100 * 48 + 24 * 48 + transformer_params(48, 3) + 2 * 48 + 48 * 20
    assert found.gmacs_image == image_macs / 1e9
    assert found.gmacs_text == text_macs / 1e9
    assert found.gmacs == (image_macs + text_macs) / 1e9
    assert (found.params_image, found.params_text) == (image_params, text_params)
    assert found.params == image_params + text_params + 1  # the logit scale
    assert found.image_size == 32


def test_a_decoder_counts_in_the_whole_but_in_no_tower() -> None:
    multimodal = {"context_length": 23, "vocab_size": 100, "width": 48, "heads": 4, "layers": 1}
    text = TEXT | {"context_length": 23, "embed_cls": True, "output_tokens": True}
    vision = VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    config = {
        "embed_dim": 48,
        "vision_cfg": vision,
        "text_cfg": text,
        "multimodal_cfg": multimodal,
        "custom_text": True,
    }
    found = profile.measure(config)
    assert found.gmacs > found.gmacs_image + found.gmacs_text
    assert found.params > found.params_image + found.params_text + 1


@pytest.mark.parametrize(
    ("arch", "gmacs", "gmacs_image", "gmacs_text", "params"),
    [  # LAION-AI/scaling-laws-openclip arch_info.csv
        ("ViT-B-32", 7.40, 4.41, 2.98, 151.28e6),
        ("ViT-B-16", 20.57, 17.58, 2.98, 149.62e6),
        ("ViT-L-14", 87.73, 81.08, 6.66, 427.62e6),
        ("ViT-H-14", 190.97, 167.40, 23.57, 986.11e6),
        ("ViT-g-14", 290.74, 267.18, 23.57, 1366.68e6),
        ("RN50", 9.12, 6.14, 2.98, 102.01e6),
        ("RN50x16", 81.55, 74.90, 6.66, 290.98e6),
        ("coca_ViT-B-32", 33.34 / 2, 9.19 / 2, 5.96 / 2, 253.56e6),  # open_clip docs/model_profile.csv, 2 x GMACs
        ("ViT-SO400M-14-SigLIP-384", 723.48 / 2, 670.35 / 2, 53.13 / 2, 877.96e6),
        ("convnext_xxlarge", 443.03 / 2, 395.94 / 2, 47.09 / 2, 1200.58e6),
    ],
)
def test_published_profiles(arch: str, gmacs: float, gmacs_image: float, gmacs_text: float, params: float) -> None:
    row = zoo.architectures()[arch]
    assert (row.gmacs, row.gmacs_image, row.gmacs_text) == pytest.approx((gmacs, gmacs_image, gmacs_text), rel=0.01)
    assert row.params == pytest.approx(params, rel=1e-4)


@pytest.mark.parametrize("arch", ["ViT-B-32", "RN50", "ViT-H-14", "ViT-B-16-SigLIP", "coca_ViT-B-32"])
def test_the_shipped_table_is_what_is_measured(arch: str) -> None:
    found, row = profile.measure(open_clip.get_model_config(arch)), zoo.architectures()[arch]
    names = ("params", "params_image", "params_text", "gmacs", "gmacs_image", "gmacs_text", "image_size")
    assert [getattr(row, name) for name in names] == pytest.approx([getattr(found, name) for name in names], rel=1e-9)


def test_a_profile_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path))
    first = profile.of_config(TINY)
    monkeypatch.setattr(profile, "measure", lambda config: pytest.fail("measured again"))
    assert profile.of_config(dict(reversed(TINY.items()))) == first


def test_a_configuration_that_is_no_model() -> None:
    with pytest.raises(ModelError, match="open_clip cannot build this model configuration"):
        profile.measure(TINY | {"text_cfg": {"breadth": 3}})
