"""Loading checkpoints: equal to open_clip on good files, a clear refusal on all others."""

import copy
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import Normalize, ToTensor

from clipeval import config as configuration
from clipeval import digest, models
from clipeval.errors import ModelError, UsageError
from clipeval.identity import CheckpointIdentity
from clipeval.models import ModelSpec, Preprocessing, library, specs, weights
from clipeval.models.checkpoint import Checkpoint
from clipeval.models.encoder import OpenClipEncoder, PixelTransform

VISION = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "layers": 2, "width": 32, "heads": 2}
TINY: dict[str, Any] = {"embed_dim": 20, "vision_cfg": VISION, "text_cfg": TEXT}
MULTIMODAL = {"context_length": 23, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
METADATA = {"source": "toy", "source_family": None, "unique_samples": 50.0, "samples_seen": 200, "seed": 3}
CPU: dict[str, Any] = {"device": "cpu", "precision": "fp32", "offline": True}
TEXTS = [
    "a photo of a cat",
    "x",
    "a much longer caption about seven purple elephants",
    "",
    "zebra zebra zebra zebra " * 9,
]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", copy.deepcopy(TINY))


def random_model(config: dict[str, Any] = TINY, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = library.build(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.normal_(std=0.3)  # fresh weights are too small to show a difference
    return model


def save_trained(path: Path, config: dict[str, Any] = TINY, arch: str = "toy", **metadata: Any) -> ModelSpec:
    content = {
        "format": weights.TRAINED_FORMAT,
        "arch": arch,
        "model_cfg": config,
        "state_dict": random_model(config).state_dict(),
        "metadata": METADATA | metadata,
    }
    torch.save(content, path)
    return ModelSpec(path.as_posix(), "trained", pretrained=path.as_posix(), path=str(path))


def of_file(path: Path, arch: str = "tiny") -> ModelSpec:
    return ModelSpec(f"{arch},{path}", "file", arch, str(path), str(path))


def refused(spec: ModelSpec, error: type[Exception] = ModelError, **settings: Any) -> str:
    with pytest.raises(error) as caught:
        models.load(spec, **CPU | settings)
    return str(caught.value)


def photographs() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    sizes = [(67, 45), (31, 90), (32, 32), (5, 3)]
    images = [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    return [*images, images[0].convert("L"), images[1].convert("RGBA"), images[0].convert("P")]


# --- equality with open_clip ---


def test_a_trained_checkpoint_embeds_as_open_clip_does(tmp_path: Path) -> None:
    spec = save_trained(tmp_path / "toy.pt")
    encoder = models.load(spec, **CPU)
    model = random_model()
    images = torch.from_numpy(np.stack([encoder.pixels(image) for image in photographs()]))
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    with torch.inference_mode():
        expected_images = model.encode_image(torch.stack([transform(image) for image in photographs()]))
        expected_texts = model.encode_text(open_clip.SimpleTokenizer(context_length=24)(TEXTS))
    assert images.shape == (7, 32, 32, 3)
    assert torch.equal(encoder.encode_images(images), expected_images)
    assert torch.equal(encoder.encode_tokens(encoder.tokenize(TEXTS)), expected_texts)
    assert expected_images.shape == (7, encoder.embed_dim)
    assert (encoder.context_length, encoder.device) == (24, "cpu")


def test_the_file_also_loads_as_a_plain_checkpoint_of_its_architecture(tmp_path: Path) -> None:
    path = tmp_path / "toy.pt"
    save_trained(path, arch="tiny")
    theirs = open_clip.create_model("tiny", pretrained=str(path)).eval()
    ours = models.load(of_file(path), **CPU)
    tokens = ours.tokenize(TEXTS)
    with torch.inference_mode():
        assert torch.equal(ours.encode_tokens(tokens), theirs.encode_text(tokens))
    assert (ours.info.source, ours.info.samples_seen, ours.info.samples_seen_from) == ("toy", 200, "measured")


class Recorder:
    """A model that returns the image it is given."""

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return images.clone()


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": (24, 32), "resize_mode": "squash", "interpolation": "bilinear"},
        {"size": 33, "resize_mode": "longest", "fill_color": 7, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        {"size": (20, 30), "mean": (0.0,) * 3, "std": (1.0,) * 3},
    ],
)
def test_pixels_and_normalisation_are_bit_identical_to_open_clip(settings: dict[str, Any], device: str) -> None:
    config = PreprocessCfg(**{"size": 31} | settings)
    transform = image_transform_v2(config, is_train=False)
    steps = [step for step in transform.transforms if not isinstance(step, (ToTensor, Normalize))]
    size = config.size if isinstance(config.size, tuple) else (config.size, config.size)
    encoder = OpenClipEncoder(
        model=Recorder(),
        text_tower=None,
        tokenizer=open_clip.SimpleTokenizer(),
        pixels=PixelTransform(steps),
        preprocessing=Preprocessing(size, config.mean, config.std, config.interpolation, config.resize_mode),
        info=models.ModelInfo("recorder"),
        embed_dim=1,
        identity=CheckpointIdentity("", "", "", "", ""),
        device=device,
        precision="fp32",
    )
    for image in photographs():
        pixels = encoder.pixels(image)
        assert (pixels.shape, pixels.dtype) == ((*size, 3), np.uint8)
        assert torch.equal(encoder.encode_images(torch.from_numpy(pixels)[None])[0].cpu(), transform(image))


def test_every_grey_level_is_scaled_as_to_tensor_does(tmp_path: Path) -> None:
    encoder = models.load(save_trained(tmp_path / "toy.pt"), **CPU)
    encoder._model = Recorder()
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    expected = transform.transforms[-1](ToTensor()(levels))
    assert torch.equal(encoder.encode_images(torch.from_numpy(levels)[None])[0], expected)


def test_pixel_transform_crosses_process_borders(tmp_path: Path) -> None:
    pixels = models.load(save_trained(tmp_path / "toy.pt"), **CPU).pixels
    image = photographs()[0]
    assert np.array_equal(pickle.loads(pickle.dumps(pixels))(image), pixels(image))


# --- trimmed texts ---


CAUSAL = {
    "clip": TINY,
    "custom text": TINY | {"custom_text": True},
    "eos": TINY | {"text_cfg": TEXT | {"pool_type": "eos", "eos_id": 49407}},
    "custom eos with bias": TINY
    | {"custom_text": True, "text_cfg": TEXT | {"pool_type": "eos", "eos_id": 49407, "proj_bias": True}},
    "no projection": TINY | {"embed_dim": 32, "custom_text": True, "text_cfg": TEXT | {"proj_type": "none"}},
    "quickgelu": TINY | {"quick_gelu": True},
}
WHOLE = {
    "siglip": TINY | {"custom_text": True, "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last"}},
    "bidirectional": TINY | {"custom_text": True, "text_cfg": TEXT | {"no_causal_mask": True}},
    "last position": TINY | {"custom_text": True, "text_cfg": TEXT | {"pool_type": "last"}},
    "class token": TINY | {"custom_text": True, "text_cfg": TEXT | {"embed_cls": True}},
    "coca": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"context_length": 23, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": MULTIMODAL,
    },
}


@pytest.mark.parametrize("name", CAUSAL)
def test_trimming_is_exact_for_causal_towers(tmp_path: Path, name: str) -> None:
    encoder = models.load(save_trained(tmp_path / "toy.pt", CAUSAL[name]), **CPU)
    tokens = encoder.tokenize(TEXTS)
    lengths = encoder.token_lengths(tokens)
    whole = encoder.encode_tokens(tokens)
    assert encoder.text_trimmable
    assert lengths.tolist() == [7, 3, 10, 2, 24]
    for row, length in enumerate(lengths):
        for cut in {int(length), min(int(length) + 3, 24)}:
            trimmed = encoder.encode_tokens(tokens[row : row + 1, :cut])
            assert torch.allclose(trimmed, whole[row : row + 1], rtol=0, atol=1e-6 * float(whole.abs().max()))
    together = encoder.encode_tokens(tokens[:4, :10])
    assert torch.allclose(together, whole[:4], rtol=0, atol=1e-6 * float(whole.abs().max()))
    assert not torch.allclose(encoder.encode_tokens(tokens[:1, :5]), whole[:1], atol=1e-3)  # too short is another text


@pytest.mark.parametrize("name", WHOLE)
def test_other_towers_are_never_trimmed(tmp_path: Path, name: str) -> None:
    encoder = models.load(save_trained(tmp_path / "toy.pt", WHOLE[name]), **CPU)
    tokens = encoder.tokenize(TEXTS)
    assert not encoder.text_trimmable
    assert set(encoder.token_lengths(tokens)) == {encoder.context_length} == {tokens.shape[1]}
    embeddings = encoder.encode_tokens(tokens)
    assert embeddings.shape == (len(TEXTS), encoder.embed_dim)
    assert embeddings.isfinite().all()


# --- what is known of a checkpoint ---


def test_description_of_a_trained_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "toy.pt"
    spec = replace(
        save_trained(path), overrides=(("source", "other"), ("samples_seen", 1e3), ("samples_seen_from", "card"))
    )
    plain, overridden = models.describe(replace(spec, overrides=()), offline=True), models.describe(spec, offline=True)
    model = random_model()
    assert (plain.model, plain.arch, plain.pretrained) == (spec.name, "toy", spec.name)
    assert plain.checkpoint_sha256 == digest.of_file(path)
    assert (plain.source, plain.source_family, plain.unique_samples) == ("toy", "toy", 50)
    assert (plain.samples_seen, plain.samples_seen_from) == (200, "measured")
    assert plain.params == sum(parameter.numel() for parameter in model.parameters())
    assert plain.image_size == 32
    assert plain.gmacs_total == plain.gmacs * 200
    assert (overridden.source, overridden.samples_seen, overridden.samples_seen_from) == ("other", 1000, "card")
    assert overridden.gmacs_total == overridden.gmacs * 1000
    assert models.load(spec, **CPU).info == overridden
    said = models.describe(replace(spec, overrides=(("source", "LAION-80M"), ("samples_seen", 1e3))), offline=True)
    assert (said.source, said.source_family, said.samples_seen_from) == ("LAION-80M", "LAION", "card")


def test_the_family_of_a_known_source_is_that_of_public_checkpoints(tmp_path: Path) -> None:
    """A table of one's own joins the paper's by source_family."""
    families = {"LAION-80M": "LAION", "DataComp-1B": "DataComp", "CLIP-WIT": "CLIP-WIT", "my-laion": "my-laion"}
    for source, family in families.items():
        spec = save_trained(tmp_path / f"{source}.pt", source=source)
        assert models.describe(spec, offline=True).source_family == family


def test_a_file_s_name_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: str, arch: str) -> Checkpoint:
        torch.save(random_model().state_dict(), tmp_path / name)
        return models.open_checkpoint(of_file(tmp_path / name, arch), offline=True)

    paper = opened("Model-B-32_Data-80M_Samples-3B_lr-5e-4_bs-32k.pt", "ViT-B-32")
    assert (paper.info.source, paper.info.params) == ("", 151277313)  # of the architecture, not of the paper
    assert np.isnan(paper.info.samples_seen)
    assert "source and samples seen of ViT-B-32,hf://laion/scaling-laws-openclip/Model-B-32" in paper.remarks[1]
    openai = opened("ViT-L-14.pt", "ViT-L-14")  # OpenAI's own file of this name has QuickGELU, and a known digest
    assert openai.description.trained_with_quick_gelu is None
    assert len(openai.remarks) == 1
    meta = opened("b32_400m.pt", "ViT-B-32")  # MetaCLIP's file name, of which no digest is known
    assert "its name is that of the tag metaclip_400m" in meta.remarks[1]
    assert "use ViT-B-32-quickgelu," in meta.remarks[1]
    assert len(opened("b32_400m.pt", "ViT-B-32-quickgelu").remarks) == 1  # this one computes what those need

    weights_file = tmp_path / "mine.pt"
    save_trained(weights_file)
    start = digest.of_file(weights_file)[:8]
    url = f"https://github.com/mlfoundations/open_clip/releases/download/v0/toy-{start}.pt"
    tag = {"url": url, "hf_hub": "", "mean": (0.1, 0.2, 0.3), "quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"toy": tag})
    torch.save(torch.load(weights_file)["state_dict"], tmp_path / "other.pt")
    other = models.open_checkpoint(of_file(tmp_path / "other.pt"), offline=True)
    assert other.description.trained_with_quick_gelu is None
    monkeypatch.setitem(tag, "url", url.replace(start, digest.of_file(tmp_path / "other.pt")[:8]))
    known = models.open_checkpoint(of_file(tmp_path / "other.pt"), offline=True)
    assert (known.preprocessing.mean, known.remarks) == ((0.1, 0.2, 0.3), ())
    assert "was trained with QuickGELU" in refused(of_file(tmp_path / "other.pt"))


def test_preprocessing_of_files_without_any(tmp_path: Path) -> None:
    def guessed(arch: str) -> tuple[dict[str, Any], str]:
        torch.save(random_model().state_dict(), tmp_path / "mine.pt")
        checkpoint = models.open_checkpoint(of_file(tmp_path / "mine.pt", arch), offline=True)
        return checkpoint.description.preprocess_cfg, checkpoint.remarks[0]

    siglip, said = guessed("ViT-B-16-SigLIP")
    assert (siglip["mean"], siglip["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")  # on which all its tags agree
    assert "not in the file: what all public checkpoints of ViT-B-16-SigLIP have is used (mean 0.5 0.5 0.5" in said
    large, said = guessed("ViT-L-14")
    assert large["mean"] == open_clip.OPENAI_DATASET_MEAN  # its tags do not agree
    assert "open_clip's default is used (mean 0.481455 0.457827 0.408211, std 0.268" in said
    assert "give `preprocess:` in benchmarks.yaml" in said


def test_a_trained_file_says_its_preprocessing_under_any_architecture(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    content = torch.load(save_trained(path).path)
    plain = models.open_checkpoint(of_file(path, "ViT-B-16-SigLIP"), offline=True)  # trained with the trainer's own
    assert (plain.description.preprocess_cfg["mean"], plain.remarks) == (open_clip.OPENAI_DATASET_MEAN, ())
    torch.save(content | {"preprocess_cfg": {"mean": [0.25] * 3}}, path)
    assert models.open_checkpoint(of_file(path), offline=True).preprocessing.mean == (0.25, 0.25, 0.25)


def with_input(path: Path, **keys: Any) -> ModelSpec:
    entry = {"spec": f"tiny,{path}", "name": "mine", **keys}
    (path.parent / "b.yaml").write_text(json.dumps({"models": [entry]}))
    [spec] = models.resolve([], configuration.load(path.parent / "b.yaml"))
    return spec


def test_the_configuration_says_what_the_file_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs.zoo, "architectures", lambda: {"tiny": specs.zoo.Architecture("tiny", *[0] * 10)})
    path = tmp_path / "w.pth"
    torch.save(random_model().state_dict(), path)
    keys = {"mean": [0.5, 0.4, 0.3], "std": 0.25, "interpolation": "bilinear", "resize_mode": "longest"}
    encoder = models.load(with_input(path, preprocess=keys | {"fill_color": 7}), **CPU)
    cfg = PreprocessCfg(32, "RGB", (0.5, 0.4, 0.3), (0.25,) * 3, "bilinear", "longest", 7)
    theirs = image_transform_v2(cfg, is_train=False)
    images = torch.stack([theirs(image) for image in photographs()])
    with torch.inference_mode():
        expected = random_model().encode_image(images)
    pixels = torch.from_numpy(np.stack([encoder.pixels(image) for image in photographs()]))
    assert torch.allclose(encoder.encode_images(pixels), expected, atol=1e-5)

    opened = models.open_checkpoint(with_input(path, preprocess=keys), offline=True)
    assert opened.remarks == ()
    some = models.open_checkpoint(with_input(path, preprocess={"std": 0.25}), offline=True)
    guessed = "(mean 0.481455 0.457827 0.408211, bicubic, shortest)"
    assert f"open_clip's default is used beside what is given {guessed}; give" in some.remarks[0]
    plain = models.open_checkpoint(of_file(path), offline=True)
    assert len({c.identity.preprocessing for c in (opened, some, plain)}) == 3


def test_another_image_size_and_context_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs.zoo, "architectures", lambda: {"tiny": specs.zoo.Architecture("tiny", *[0] * 10)})
    path = tmp_path / "w.pth"
    torch.save(random_model().state_dict(), path)
    theirs = open_clip.create_model("tiny", pretrained=str(path), force_image_size=48).eval()
    for keys in ({"image_size": 48}, {"preprocess": {"size": 48}}):
        ours = models.load(with_input(path, **keys), **CPU)
        pixels = torch.stack([torch.from_numpy(ours.pixels(image)) for image in photographs()])
        assert pixels.shape == (7, 48, 48, 3)
        with torch.inference_mode():
            normal = Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
            expected = theirs.encode_image(normal(pixels.permute(0, 3, 1, 2).float() / 255))
        assert torch.allclose(ours.encode_images(pixels), expected, atol=1e-5)
        assert ours.info.image_size == 48
    plain = models.open_checkpoint(of_file(path), offline=True)
    assert ours.identity.model != plain.identity.model
    assert ours.info.gmacs_image > 2 * plain.info.gmacs_image  # 36 patches and not 16
    short = TINY | {"text_cfg": TEXT | {"context_length": 11}}
    assert "has the shape (24, 32), but tiny needs (11, 32)" in refused(with_input(path, context_length=11))
    torch.save(random_model(short).state_dict(), path)
    encoder = models.load(with_input(path, context_length=11), **CPU)
    tokens = open_clip.SimpleTokenizer(context_length=11)(TEXTS)
    assert torch.equal(encoder.tokenize(TEXTS), tokens)
    with torch.inference_mode():
        assert torch.equal(encoder.encode_tokens(tokens), random_model(short).encode_text(tokens))
    with pytest.raises(UsageError, match=r"image_size is 48, but preprocess\.size is 64\. Give one of them"):
        with_input(path, image_size=48, preprocess={"size": 64})


def test_bf16_is_close_to_fp32_and_leaves_as_fp32(tmp_path: Path) -> None:
    spec = save_trained(tmp_path / "toy.pt")
    pixels = torch.from_numpy(np.stack([models.load(spec, **CPU).pixels(image) for image in photographs()]))
    exact, half = (models.load(spec, **CPU | {"precision": name}) for name in ("fp32", "bf16"))
    tokens = exact.tokenize(TEXTS)[:4, :10]
    for ours, theirs in (
        (half.encode_images(pixels), exact.encode_images(pixels)),
        (half.encode_tokens(tokens), exact.encode_tokens(tokens)),
    ):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


# --- folders and the hub ---


def save_folder(folder: Path, file: str = "open_clip_model.safetensors") -> ModelSpec:
    folder.mkdir(exist_ok=True)
    preprocess = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess}))
    save_file(random_model().state_dict(), folder / file)
    return ModelSpec(f"local-dir:{folder}", "local-dir", "", f"local-dir:{folder}", str(folder))


def test_local_folder_with_its_preprocessing(tmp_path: Path) -> None:
    spec = save_folder(tmp_path / "m")
    encoder = models.load(spec, **CPU)
    assert encoder.preprocessing == Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3, "bilinear", "squash")
    assert encoder.info.params == sum(parameter.numel() for parameter in random_model().parameters())
    theirs, _, transform = open_clip.create_model_and_transforms(spec.pretrained)
    image = photographs()[0]
    with torch.inference_mode():
        expected = theirs.eval().encode_image(transform(image)[None])
    assert torch.equal(encoder.encode_images(torch.from_numpy(encoder.pixels(image))[None]), expected)


def test_messages_for_broken_folders(tmp_path: Path) -> None:
    spec = save_folder(tmp_path / "m", "a.safetensors")
    assert models.locate(spec, offline=True).name == "a.safetensors"
    (tmp_path / "m" / "b.bin").write_bytes(b"")
    assert "found several: a.safetensors, b.bin" in refused(spec)
    for file in ("a.safetensors", "b.bin"):
        (tmp_path / "m" / file).unlink()
    assert "found none" in refused(spec)
    save_folder(tmp_path / "m")
    (tmp_path / "m" / "open_clip_config.json").write_text("{")
    assert "open_clip_config.json: not a readable JSON file" in refused(spec)
    (tmp_path / "m" / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}')
    assert "`model_cfg` with embed_dim, vision_cfg and text_cfg is missing" in refused(spec)


def test_offline_message_names_the_file_and_the_repository() -> None:
    tag = ModelSpec("ViT-B-32,laion2b_s34b_b79k", "tag", "ViT-B-32", "laion2b_s34b_b79k")
    expected = (
        "ViT-B-32,laion2b_s34b_b79k: 'open_clip_model.safetensors' or 'open_clip_pytorch_model.bin' of hub repository "
        "'laion/CLIP-ViT-B-32-laion2B-s34B-b79K' is not on this machine, and nothing is downloaded "
        "now (--offline, HF_HUB_OFFLINE or --plan)."
    )
    assert expected in refused(tag)
    file = ModelSpec("x", "hf", "ViT-B-32", "hf://org/repo/sub/w.pt")
    assert "'sub/w.pt' of hub repository 'org/repo'" in refused(file)
    vitamin = ModelSpec("x", "tag", "ViTamin-S", "datacomp1b")
    assert "'pytorch_model.safetensors' or 'pytorch_model.bin' of hub repository 'jienengchen/ViTamin-S'" in refused(
        vitamin
    )


def test_a_repository_that_open_clip_has_a_tag_for_is_described_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    here = tmp_path / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K" / "snapshots" / ("0" * 40)
    here.mkdir(parents=True)
    save_file({"x": torch.zeros(1)}, here / "open_clip_model.safetensors")
    spec = ModelSpec("h", "hub", "", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
    info = models.describe(spec, offline=True)
    assert (info.model, info.arch, info.pretrained) == ("h", "ViT-B-32", spec.pretrained)
    assert (info.source, info.samples_seen) == ("LAION-2B", 34725395968)


def test_towers_and_tokenizers_of_the_hub_are_not_fetched_offline(tmp_path: Path) -> None:
    text = {"hf_model_name": "org/tower", "hf_tokenizer_name": "org/words"}
    spec = save_trained(tmp_path / "w.pt", TINY | {"text_cfg": TEXT | {"hf_tokenizer_name": "org/words"}})
    assert "'tokenizer.json' or 'vocab.json' or 'vocab.txt' of hub repository 'org/words' is not on this" in refused(
        spec
    )
    spec = save_folder(tmp_path / "m")
    (tmp_path / "m" / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY | {"text_cfg": text}}))
    assert "'config.json' of hub repository 'org/tower' is not on this machine" in refused(spec)


# --- refusals ---


class Bomb:
    """Creates a file when it is unpickled the unsafe way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_execute_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    target, path = tmp_path / "boom", tmp_path / "evil.pt"
    content = {"state_dict": {"x": torch.zeros(2)}, "payload": Bomb(target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for spec in (of_file(path), ModelSpec("evil", "trained", path=str(path))):
        text = refused(spec)
        assert "would execute code" in text
        assert "refused, nothing was executed" in text
    plain = tmp_path / "plain.bin"
    plain.write_bytes(pickle.dumps(content["payload"]))
    refused(of_file(plain))
    assert not target.exists()


@pytest.mark.parametrize("cut", [0, 10, 1000, -1000])
def test_cut_off_file(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "toy.pt"
    spec = save_trained(path)
    path.write_bytes(path.read_bytes()[:cut])
    assert "not readable as a checkpoint" in refused(spec)
    assert "not readable as a checkpoint" in refused(of_file(path))


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors"])
def test_file_that_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("<html>404</html>")
    assert f"{path}: not readable as a checkpoint" in refused(of_file(path))


def test_torchscript_archive(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    buffer = io.BytesIO()
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    path.write_bytes(buffer.getvalue())
    assert "a TorchScript archive, which is a program; refused" in refused(of_file(path, "ViT-B-32-quickgelu"))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            {"vision_cfg": VISION | {"patch_size": 16}},
            "'visual.positional_embedding' has the shape (5, 32), but tiny needs (17, 32)",
        ),
        (
            {"vision_cfg": VISION | {"image_size": 64}},  # open_clip would interpolate this one
            "'visual.positional_embedding' has the shape (65, 32), but tiny needs (17, 32)",
        ),
        (
            {"text_cfg": TEXT | {"context_length": 30}},
            "'positional_embedding' has the shape (30, 32), but tiny needs (24, 32)",
        ),
        ({"embed_dim": 24}, "'text_projection' has the shape (32, 24), but tiny needs (32, 20)"),
        (
            {"vision_cfg": VISION | {"layers": 3}},
            "has 'visual.transformer.resblocks.2.ln_1.weight' and 11 more, unlike",
        ),
        ({"text_cfg": TEXT | {"layers": 1}}, "lacks 'transformer.resblocks.1.ln_1.weight' and 11 more, unlike tiny"),
    ],
)
def test_checkpoint_of_another_shape(tmp_path: Path, other: dict[str, Any], expected: str) -> None:
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in random_model(TINY | other).state_dict().items()}}, path)
    text = refused(of_file(path))
    assert expected in text
    assert "Give the architecture that the checkpoint was trained with." in text


def test_older_names_of_the_text_tower_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "custom", TINY | {"custom_text": True})
    path = tmp_path / "w.pt"
    torch.save(random_model().state_dict(), path)
    tokens = open_clip.SimpleTokenizer(context_length=24)(TEXTS)
    with torch.inference_mode():
        expected = random_model().encode_text(tokens)
    assert torch.equal(models.load(of_file(path, "custom"), **CPU).encode_tokens(tokens), expected)


def test_checkpoints_without_weights_or_architecture(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3}, path)
    assert "holds no model weights" in refused(of_file(path))
    torch.save(random_model().state_dict(), path)
    assert "not a checkpoint of clipeval-train" in refused(ModelSpec("w", "trained", path=str(path)))
    torch.save({"format": weights.TRAINED_FORMAT, "state_dict": {}}, path)
    assert "`model_cfg` with embed_dim, vision_cfg and text_cfg is missing" in refused(
        ModelSpec("w", "trained", path=str(path))
    )
    torch.save({"format": weights.TRAINED_FORMAT, "state_dict": {}, "model_cfg": TINY}, path)
    assert "`metadata` is missing" in refused(ModelSpec("w", "trained", path=str(path)))
    path.unlink()
    assert "does not exist" in refused(of_file(path))


def test_activation_on_record_must_be_the_architecture_s(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_trained(path, TINY | {"quick_gelu": True})
    assert "was trained with QuickGELU, but tiny computes GELU" in refused(of_file(path))


def test_a_vocabulary_smaller_than_the_tokenizer_s(tmp_path: Path) -> None:
    spec = save_trained(tmp_path / "w.pt", TINY | {"text_cfg": TEXT | {"vocab_size": 100}})
    assert "vocab_size is 100, but open_clip's tokenizer has 49408 tokens" in refused(spec)


def test_devices_and_precisions_that_cannot_be(tmp_path: Path) -> None:
    spec = save_trained(tmp_path / "w.pt")
    assert "int8 is none of fp32, tf32, bf16, bf16-weights, fp16" in refused(spec, UsageError, precision="int8")
    for name in ("fp16", "tf32"):
        assert f"precision {name} needs a CUDA GPU, and the device is cpu" in refused(spec, UsageError, precision=name)
    assert "expected cpu, cuda or cuda:N" in refused(spec, UsageError, device="gpu")
    if not torch.cuda.is_available():
        assert "torch finds 0 CUDA devices here" in refused(spec, UsageError, device="cuda")
