"""Checkpoints of transformers against its own models, processors and tokenizers."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers as tf
import transformers_folders
from checkpoints import CPU
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers_folders import FAMILIES, theirs

import clipeval
from clipeval import config, models
from clipeval.errors import ModelError, UsageError
from clipeval.models.transformers.images import images_of
from clipeval.models.transformers.library import KINDS

TEXTS = ["a photo of a cat", "x", "", "the blurry small digit seven", "dog!", "of " * 30 + "cat", "nine"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("transformers")
    return {name: transformers_folders.write(name, place / name) for name in FAMILIES}


@pytest.fixture
def clip(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one, to be changed."""
    return Path(shutil.copytree(folders["clip"], tmp_path / "clip"))


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = ((32, 32), (50, 70), (97, 33), (300, 41), (5, 5))
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def opened(folder: Path) -> Any:
    [spec] = models.resolve([f"transformers:{folder}"], config.packaged())
    return models.open_checkpoint(spec, offline=True)


def loaded(folder: Path) -> Any:
    return models.load(opened(folder), **CPU)


def embedded(encoder: Any, images: list[Image.Image], texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(np.stack([encoder.pixels(image) for image in images]))
    tokenized = encoder.tokenized(texts)
    order = np.argsort(tokenized.lengths, kind="stable")
    rows = torch.cat([tokenized.encode(order[start : start + 3]) for start in range(0, len(order), 3)])
    return encoder.encode_images(pixels), rows[np.argsort(order)]


def refused(folder: Path, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        loaded(folder)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_are_those_of_transformers(folders: dict[str, Path], name: str) -> None:
    """Images of any shape; texts in sorted batches, each cut to its longest one where that is exact."""
    encoder = loaded(folders[name])
    ours, expected = embedded(encoder, pictures(), TEXTS), theirs(folders[name], pictures(), TEXTS)
    for mine, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=2e-5, atol=2e-5)
        assert mine.std(0).min() > 1e-2  # which would not show a difference
    scores = [torch.nn.functional.normalize(i) @ torch.nn.functional.normalize(t).T for i, t in (ours, expected)]
    assert torch.equal(scores[0].argsort(1), scores[1].argsort(1))
    assert encoder.embed_dim == ours[0].shape[1]
    assert encoder.context_length == FAMILIES[name].context
    assert encoder.are_cut(TEXTS)[[0, 1, 2, 5]].tolist() == [False, False, False, True] or name == "clip"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_is_cut_where_pads_are_hidden_only(folders: dict[str, Path], name: str) -> None:
    encoder = loaded(folders[name])
    lengths = encoder.tokenized(TEXTS).lengths
    assert (set(lengths) == {16}) == KINDS[name].whole
    if not KINDS[name].whole:
        assert lengths[TEXTS.index("")] == 2
        assert lengths.max() == 20


def as_of_2021(folder: Path) -> Path:
    """The layout of OpenAI's own repositories: an image processor by its old name and sizes that are one number, the
    configurations of the towers twice, an end of text that is 2, a pickle with position ids."""
    said = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    del said["image_processor_type"], said["do_rescale"], said["rescale_factor"], said["do_convert_rgb"]
    said |= {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"] |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "id2label": {"0": "LABEL_0"}}
    settings |= {f"{tower}_config_dict": dict(settings[f"{tower}_config"]) for tower in ("text", "vision")}
    settings |= {"torch_dtype": "float32", "transformers_version": None, "architectures": ["CLIPModel"]}
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = load_file(folder / "model.safetensors")
    ids = {f"{tower}_model.embeddings.position_ids": torch.arange(20)[None] for tower in ("text", "vision")}
    torch.save(tensors | ids, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


def test_folders_as_of_2021(clip: Path, folders: dict[str, Path]) -> None:
    new = embedded(loaded(folders["clip"]), pictures(), TEXTS)
    encoder = loaded(as_of_2021(clip))
    ours, expected = embedded(encoder, pictures(), TEXTS), theirs(clip, pictures(), TEXTS)
    for mine, right, same in zip(ours, expected, new, strict=True):
        torch.testing.assert_close(mine, right, rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(mine, same, rtol=2e-5, atol=2e-5)
    assert encoder.remarks == ()


def test_siglip_2_of_one_resolution_is_a_siglip_with_another_tokenizer(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    place = Path(shutil.copytree(folders["siglip"], tmp_path / "siglip2-fixed"))
    for path in [*place.glob("spiece*"), *place.glob("tokenizer*")]:
        path.unlink()
    for path in folders["siglip2"].glob("tokenizer*"):
        shutil.copy(path, place)
    ours, expected = embedded(loaded(place), pictures(), TEXTS), theirs(place, pictures(), TEXTS)
    for mine, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=2e-5, atol=2e-5)


def test_the_limit_of_texts(folders: dict[str, Path], tmp_path: Path) -> None:
    """The smaller of what tokenizer and tower take; position ids of RoBERTa need two places more."""
    assert opened(folders["altclip"]).pieces.config.text_config.max_position_embeddings == 22
    place = Path(shutil.copytree(folders["altclip"], tmp_path / "long"))
    settings = place / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 10**30}))
    encoder = loaded(place)
    assert encoder.context_length == 20
    assert encoder.encode_tokens(encoder.tokenize(["cat " * 99])).isfinite().all()


@pytest.mark.parametrize(
    ("size", "grid"), [((640, 480), (14, 18)), ((1000, 100), (5, 50)), ((30, 30), (16, 16)), ((1, 5000), (256, 1))]
)
def test_grids_of_images_that_keep_their_shape(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """Width and height in pixels; rows and columns of patches of 16, at most 256 of them."""
    images = images_of(tf.Siglip2ImageProcessor(), KINDS["siglip2"], "x")
    record = images.pixels(Image.new("RGB", size, (255, 0, 51)))
    assert record.shape == images.record_shape == (256 * 768 + 4,)
    inputs = images.inputs(torch.from_numpy(record)[None], images.scaling("cpu"))
    n = grid[0] * grid[1]
    assert inputs["spatial_shapes"].tolist() == [list(grid)]
    assert inputs["pixel_attention_mask"].tolist() == [[1] * n + [0] * (256 - n)]
    values = inputs["pixel_values"].reshape(256, 256, 3)
    torch.testing.assert_close(values[:n].unique(dim=1).squeeze(1), torch.tensor([[1.0, -1.0, -0.6]]).expand(n, 3))
    assert not values[n:].any()


def test_a_folders_own_patches_count(folders: dict[str, Path]) -> None:
    """Their processor, called with images alone, would take 256 patches of 16."""
    assert loaded(folders["siglip2"]).record_shape == (24 * 8 * 8 * 3 + 4,)


def test_images_that_keep_no_size_are_refused(clip: Path) -> None:
    settings = clip / "processor_config.json"
    said = json.loads(settings.read_text())
    said["image_processor"]["do_center_crop"] = False
    settings.write_text(json.dumps(said))
    refused(clip, "makes images of different sizes")


def test_a_stripe_takes_no_gigabytes(folders: dict[str, Path]) -> None:
    encoder = loaded(folders["clip"])
    column = np.zeros((60_000, 1, 3), np.uint8)
    column[29_990:30_010] = 200
    assert encoder.pixels(Image.fromarray(column)).shape == (32, 32, 3)
    assert set(encoder.pixels(Image.fromarray(column)).ravel()) == {200}
    assert set(encoder.pixels(Image.fromarray(column.transpose(1, 0, 2))).ravel()) == {200}


def half_precision(tmp_path: Path) -> tuple[Path, Path]:
    """The same weights, stored in 16 bits, and these in 32."""
    half = transformers_folders.write("clip", tmp_path / "half", dtype=torch.float16)
    full = Path(shutil.copytree(half, tmp_path / "full"))
    widened = {name: tensor.float() for name, tensor in load_file(half / "model.safetensors").items()}
    save_file(widened, full / "model.safetensors", {"format": "pt"})
    return half, full


def test_weights_compute_in_32_bits_whatever_they_are_stored_in(tmp_path: Path) -> None:
    half, full = half_precision(tmp_path)
    ours, expected = (embedded(loaded(place), pictures(), TEXTS) for place in (half, full))
    assert all(map(torch.equal, ours, expected))
    assert ours[0].dtype == torch.float32


def with_tensors(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_a_missing_tensor_is_not_drawn_at_random(clip: Path) -> None:
    with_tensors(clip, lambda tensors: tensors.pop("text_projection.weight"))
    refused(clip, "lacks 'text_projection.weight'")


def test_a_tensor_of_another_shape_is_refused(clip: Path) -> None:
    with_tensors(clip, lambda tensors: tensors.update({"text_projection.weight": torch.zeros(16, 23)}))
    refused(clip, "text_projection.weight")


def test_more_layers_than_the_configuration_says(clip: Path) -> None:
    settings = json.loads((clip / "config.json").read_text())
    settings["vision_config"]["num_hidden_layers"] = 1
    (clip / "config.json").write_text(json.dumps(settings))
    refused(clip, "more layers than its config.json says")


def test_tensors_without_use_are_said(clip: Path) -> None:
    ids = "text_model.embeddings.position_ids"  # of older versions: harmless
    with_tensors(clip, lambda tensors: tensors.update({ids: torch.arange(20)[None]}))
    assert loaded(clip).remarks == ()
    with_tensors(clip, lambda tensors: tensors.update({"text_model.pooler.weight": torch.zeros(3)}))
    assert loaded(clip).remarks == ("1 tensors of its weights are not used, as 'text_model.pooler.weight'",)


def test_every_shard_decides(folders: dict[str, Path], tmp_path: Path) -> None:
    shards = transformers_folders.write("clip", tmp_path / "shards", max_shard_size="40KB")
    files = sorted(shards.glob("model-*.safetensors"))
    assert len(files) > 2
    ours, expected = embedded(loaded(shards), pictures(), TEXTS), embedded(loaded(folders["clip"]), pictures(), TEXTS)
    assert all(map(torch.equal, ours, expected))
    before = opened(shards).identity
    tensors = load_file(files[1])
    tensors[sorted(tensors)[0]] += 1
    save_file(tensors, files[1], {"format": "pt"})
    assert opened(shards).identity.weights != before.weights
    planned = opened(shards)
    tensors[sorted(tensors)[0]] += 1
    save_file(tensors, files[1], {"format": "pt"})
    with pytest.raises(ModelError, match="changed since it was opened"):
        models.load(planned, **CPU)
    files[1].unlink()
    refused(shards, f"{files[1].name}', which model.safetensors.index.json names, does not exist")


@pytest.mark.parametrize("named", ["../../etc/passwd", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_an_index_names_files_beside_it(clip: Path, named: str) -> None:
    (clip / "model.safetensors").unlink()
    (clip / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": named}}))
    refused(clip, "which is no file beside it")


def test_pickled_weights_are_data(clip: Path, folders: dict[str, Path]) -> None:
    torch.save(load_file(clip / "model.safetensors"), clip / "pytorch_model.bin")
    (clip / "model.safetensors").unlink()
    ours, expected = (embedded(loaded(place), pictures(), TEXTS) for place in (clip, folders["clip"]))
    assert all(map(torch.equal, ours, expected))


@pytest.mark.parametrize("content", [[torch.zeros(1)], {1: torch.zeros(1)}, {"state_dict": {"a": torch.zeros(1)}}, 3])
def test_pickles_that_are_no_dictionary_of_tensors(clip: Path, content: Any) -> None:
    torch.save(content, clip / "pytorch_model.bin")
    (clip / "model.safetensors").unlink()
    refused(clip, "not a dictionary of tensors by name")


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return open, (self.marker, "w")


def test_a_pickle_runs_nothing(clip: Path, tmp_path: Path) -> None:
    (clip / "model.safetensors").unlink()
    (clip / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Payload(tmp_path / "ran")}))
    refused(clip, "pytorch_model.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_beside_it_is_not_looked_for(
    clip: Path, tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (clip / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    classes = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor")
    said = json.loads((clip / file).read_text()) | {"auto_map": dict.fromkeys(classes, "own.Own")}
    (clip / file).write_text(json.dumps(said))
    refused(clip, "`auto_map` names code to run")
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_class_of_its_own_is_none(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.chdir(clip)
    (clip / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    for kind in ("Own", "own.Own"):
        said = json.loads((clip / "tokenizer_config.json").read_text()) | {"tokenizer_class": kind}
        (clip / "tokenizer_config.json").write_text(json.dumps(said))
        with contextlib.suppress(ModelError):
            assert loaded(clip).tokenize(["cat"]).numel()
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "bert"}, "model_type is 'bert', which is no model of images and texts"),
        ({"model_type": None}, "model_type is None"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights are not read"),
        ({"projection_dim": 10**9}, "projection_dim"),
        ({"vision_config": {"num_hidden_layers": 5000}}, "num_hidden_layers"),
        ({"vision_config": {"image_size": 4096, "patch_size": 1}}, "patches"),
        ({"text_config": []}, "text_config"),
        ({"model_type": {}}, "model_type is {}"),
        ({"projection_dim": 10**6}, "They do not belong together"),
        (
            {"vision_config": transformers_folders.VISION | {"num_attention_heads": 7}},
            "transformers cannot read its configuration: Class validation error for validator",
        ),
    ],
)
def test_odd_configurations(clip: Path, change: dict[str, Any], says: str) -> None:
    settings = json.loads((clip / "config.json").read_text()) | change
    (clip / "config.json").write_text(json.dumps(settings))
    refused(clip, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": {"height": 100_000, "width": 100_000}, "do_center_crop": False}, "image processor.size"),
        ({"size": {"shortest_edge": 0}}, "image processor.size"),
        ({"crop_size": 10**6}, "image processor"),
        ({"rescale_factor": "x"}, "image processor"),
        ({"image_mean": [0, 0]}, "image processor"),
        ({"image_std": [0, 1, 1]}, "image processor.image_std"),
        ({"do_normalize": 7}, "image processor.do_normalize"),
        ({"resample": 10**6}, "image processor"),
    ],
)
def test_odd_image_processors(clip: Path, change: dict[str, Any], says: str) -> None:
    said = json.loads((clip / "processor_config.json").read_text())
    said["image_processor"] |= change
    (clip / "processor_config.json").write_text(json.dumps(said))
    refused(clip, says)


@pytest.mark.parametrize("length", [0, -3, "x", [1], {}, None])
def test_odd_lengths_of_texts(clip: Path, length: Any) -> None:
    said = json.loads((clip / "tokenizer_config.json").read_text()) | {"model_max_length": length}
    (clip / "tokenizer_config.json").write_text(json.dumps(said))
    try:
        assert loaded(clip).context_length == 20  # transformers takes null for no limit
    except ModelError as error:
        said = str(error)
        assert "how long a text may be is not known" in said or "cannot read its configuration" in said


def test_what_a_folder_lacks_is_named(clip: Path) -> None:
    for name, says in (
        ("processor_config.json", "does not say how images become its input"),
        ("model.safetensors", "has no weights: none of model.safetensors"),
    ):
        data = (clip / name).read_bytes()
        (clip / name).unlink()
        refused(clip, says)
        (clip / name).write_bytes(data)
    for name in ("tokenizer.json", "vocab.json"):
        (clip / name).unlink()
    refused(clip, "holds no tokenizer")


def test_identity_is_what_decides(clip: Path) -> None:
    def changed(name: str, **values: Any) -> set[str]:
        before, text = vars(opened(clip).identity), (clip / name).read_text()
        (clip / name).write_text(json.dumps(json.loads(text) | values))
        after = vars(opened(clip).identity)
        (clip / name).write_text(text)
        return {key for key in before if before[key] != after[key]}

    assert changed("config.json", architectures=["X"], transformers_version="4.0.0", dtype="float16") == set()
    assert changed("config.json", _name_or_path="elsewhere") == set()
    assert changed("config.json", logit_scale_init_value=3.0) == {"model"}
    assert changed("tokenizer_config.json", model_max_length=9) == {"tokenizer"}
    [images] = [json.loads((clip / "processor_config.json").read_text())["image_processor"]]
    assert changed("processor_config.json", image_processor=images | {"resample": 2}) == {"preprocessing"}
    assert (
        opened(clip).images.settings["processor"]
        == type(tf.AutoProcessor.from_pretrained(clip).image_processor).__name__
    )
    (clip / "README.md").write_text("x")
    assert opened(clip).identity == opened(clip).identity


def test_pixels_do_not_depend_on_what_scales_them(clip: Path) -> None:
    before = loaded(clip)
    said = json.loads((clip / "processor_config.json").read_text())
    said["image_processor"]["image_mean"] = [0.1, 0.2, 0.3]
    (clip / "processor_config.json").write_text(json.dumps(said))
    after = loaded(clip)
    assert before.pixel_settings == after.pixel_settings
    assert before.identity.preprocessing != after.identity.preprocessing
    ours, expected = embedded(after, pictures(), TEXTS), theirs(clip, pictures(), TEXTS)
    torch.testing.assert_close(ours[0], expected[0], rtol=2e-5, atol=2e-5)


# --- the same model in both libraries ---


def converted(place: Path) -> tuple[Path, str]:
    """A tiny open_clip model as its own folder and as one of transformers, by the names that both give their parts."""
    torch.manual_seed(1)
    model_cfg = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    model: Any = open_clip.CLIP(**model_cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    ours = place / "open_clip"
    ours.mkdir()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "attn_mask"}
    save_file(state, ours / "open_clip_model.safetensors")
    preprocess = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    described = {"model_cfg": model_cfg, "preprocess_cfg": preprocess | {"interpolation": "bicubic"}}
    (ours / "open_clip_config.json").write_text(json.dumps(described))

    shared = {"hidden_act": "quick_gelu", "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"hidden_size": 32, "intermediate_size": 128, "vocab_size": 49408, "max_position_embeddings": 77}
    special = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    vision = {"hidden_size": 64, "intermediate_size": 256, "image_size": 32, "patch_size": 8}
    other = tf.CLIPModel(
        tf.CLIPConfig(text_config=shared | words | special, vision_config=shared | vision, projection_dim=16)
    )
    other.load_state_dict(_renamed(model.state_dict()), strict=False)
    theirs = place / "transformers"
    tokenizer = open_clip.SimpleTokenizer()
    numbers = dict(tokenizer.encoder)
    for mine, their in (("<start_of_text>", "<|startoftext|>"), ("<end_of_text>", "<|endoftext|>")):
        numbers[their] = numbers.pop(mine)
    merges = [pair for pair, _ in sorted(tokenizer.bpe_ranks.items(), key=lambda item: item[1])]
    tokens = tf.CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=77)
    with transformers_folders.quiet():
        other.save_pretrained(theirs)
        images = tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        tf.CLIPProcessor(image_processor=images, tokenizer=tokens).save_pretrained(theirs)
    return theirs, f"local-dir:{ours}"


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {"logit_scale": state["logit_scale"]}
    for mine, their in (("visual.", "vision_model."), ("", "text_model.")):
        block = f"{mine}transformer.resblocks."
        for name, tensor in state.items():
            if not name.startswith(block):
                continue
            number, _, rest = name.removeprefix(block).partition(".")
            layer = f"{their}encoder.layers.{number}."
            for old, new in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1")):
                rest = rest.replace(old, new)
            rest = rest.replace("mlp.c_proj", "mlp.fc2").replace("attn.out_proj", "self_attn.out_proj")
            if rest.startswith("attn.in_proj_"):
                for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                    found[f"{layer}self_attn.{part}_proj.{rest.removeprefix('attn.in_proj_')}"] = rows
            else:
                found[layer + rest] = tensor
    for old, new in (("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm")):
        found |= {f"{new}.{part}": state[f"{old}.{part}"] for part in ("weight", "bias")}
    found |= {f"text_model.final_layer_norm.{part}": state[f"ln_final.{part}"] for part in ("weight", "bias")}
    return found | {
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "visual_projection.weight": state["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_projection.weight": state["text_projection"].T,
    }


def test_one_model_in_both_libraries_has_equal_rows(tmp_path: Path) -> None:
    theirs, ours = converted(tmp_path)
    table = clipeval.run(models=[f"transformers:{theirs}", ours], datasets=["digits"], out=tmp_path / "out")
    values = table.pivot_table(index="metric", columns="model", values="value")
    assert len(values) == 3
    assert (values.iloc[:, 0] == values.iloc[:, 1]).all()
    left, right = (
        models.open_checkpoint(spec, offline=True).info
        for spec in models.resolve([f"transformers:{theirs}", ours], config.packaged())
    )
    assert left.params == right.params
    assert (left.params_image, left.params_text) == (right.params_image, right.params_text)
    assert left.gmacs == pytest.approx(right.gmacs, rel=1e-9)


def test_a_folder_is_told_by_its_content(folders: dict[str, Path], tmp_path: Path) -> None:
    def read(word: str) -> tuple[str, str, str]:
        [spec] = models.resolve([word], config.packaged())
        return spec.name, spec.kind, spec.guess

    clip = str(folders["clip"])
    said = "read as a checkpoint of transformers: its config.json says model_type 'clip'"
    assert read(clip) == (f"transformers:{clip}", "transformers", said)
    assert read(f"transformers:{clip}") == (f"transformers:{clip}", "transformers", "")
    assert len(models.resolve([clip, f"transformers:{clip}"], config.packaged())) == 1
    _, ours = converted(tmp_path)
    place = ours.removeprefix("local-dir:")
    shutil.copy(folders["clip"] / "config.json", place)  # repositories of open_clip hold one, too
    assert read(place)[:2] == (ours, "local-dir")
    (tmp_path / "empty").mkdir()
    for word, says in (
        (str(tmp_path / "empty"), "is no folder of a checkpoint"),
        (f"local-dir:{clip}", f"is one of transformers (model_type 'clip'): use transformers:{clip}"),
        (f"transformers:{tmp_path / 'empty'}", "has no file config.json"),
        ("transformers:./no/such/folder", "neither a folder that exists nor"),
    ):
        with pytest.raises(UsageError) as caught:
            read(word)
        assert says in str(caught.value)


def test_what_would_have_no_effect_is_an_error(clip: Path, tmp_path: Path) -> None:
    yaml = tmp_path / "b.yaml"
    yaml.write_text(f"models: [{{spec: 'transformers:{clip}', image_size: 64}}]\n")
    with pytest.raises(UsageError, match=r"models\[0\].image_size: means nothing for transformers:"):
        models.resolve([], config.load(yaml))


def test_facts_of_the_configuration_win(clip: Path, tmp_path: Path) -> None:
    yaml = tmp_path / "b.yaml"
    yaml.write_text(f"models: [{{name: mine, spec: 'transformers:{clip}', source: S, samples_seen: 2.0e9}}]\n")
    [spec] = models.resolve([], config.load(yaml))
    info = models.describe(spec, offline=True)
    assert (info.model, info.arch, info.source, info.source_family) == ("mine", "CLIPModel", "S", "S")
    assert info.gmacs_total == info.gmacs * 2e9
    assert info.image_size == 32
