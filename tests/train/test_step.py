"""Gradients of N processes x k micro-batches against one process that holds the whole batch at once."""

import itertools
import json

import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from worlds import in_processes, one

from clipeval.errors import UsageError
from clipeval_train import step as step_module
from clipeval_train.step import ContrastiveStep

PAIRS, CONTEXT, VOCABULARY = 24, 16, 50
CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "width": 8, "layers": 2, "head_width": 4},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 8, "heads": 2, "layers": 2},
    "init_logit_bias": -1.5,
}
UNHIDDEN = "ignore:The .grad attribute of a Tensor that is not a leaf"
"""torch.compile hides this warning of its own, but not where warnings are errors."""
CASES = [(loss, micro, {}) for loss in ("clip", "siglip") for micro in ("k=1", "k=2", "k=4", "uneven")]
CASES += [(loss, "k=1", {"tile": tile}) for loss in ("clip", "siglip") for tile in (1, 3, 7)]
CASES += [("clip", micro, {"checkpointing": True}) for micro in ("k=1", "k=2")]


def model(**vision):
    """A model in fp64 whose parameters are all away from zero and one."""
    config = json.loads(json.dumps(CONFIG))
    config["vision_cfg"] |= vision
    torch.manual_seed(3)
    clip = open_clip.CLIP(**config).double()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return clip


def batch(pairs=PAIRS):
    """Captions of 2 to 11 tokens; the highest number ends each, zeros follow."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(pairs, 3, 8, 8, generator=generator, dtype=torch.float64)
    tokens = torch.randint(1, VOCABULARY - 1, (pairs, CONTEXT), generator=generator)
    for row, end in enumerate(torch.randint(1, 11, (pairs,), generator=generator).tolist()):
        tokens[row, end] = VOCABULARY - 1
        tokens[row, end + 1 :] = 0
    return images, tokens


def reference(clip, loss, images, tokens):
    """open_clip's own towers (at full context) and loss, in one process: the loss and all gradients."""
    features = [torch.nn.functional.normalize(f, dim=-1) for f in (clip.encode_image(images), clip.encode_text(tokens))]
    value = (ClipLoss() if loss == "clip" else SigLipLoss())(*features, clip.logit_scale.exp(), clip.logit_bias)
    value.backward()
    return value.item(), gradients(clip)


def gradients(clip):
    return {name: parameter.grad for name, parameter in clip.named_parameters()}


def assert_equal(found, expected, where=""):
    """All of the parameters, to 1e-10."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-10, (name, where)


def part_size(pairs, micro):
    return {"k=1": None, "k=2": pairs // 2, "k=4": pairs // 4, "uneven": pairs - pairs // 3}[micro]


def two_steps(world, cases):
    """Per case the loss and gradients of the second of two equal steps: the first must leave nothing behind."""
    images, tokens = batch()
    n = PAIRS // world.size
    own = slice(world.rank * n, (world.rank + 1) * n)
    results = []
    for loss, micro, options in cases:
        step = ContrastiveStep(model(), world, loss, micro_batch=part_size(n, micro), **options)
        step.backward(images[own], tokens[own])
        step.module.zero_grad()
        value = step.backward(images[own], tokens[own])
        results.append((value.item(), gradients(step.module)))
    return results


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_gradient_equals_that_of_one_process_with_the_whole_batch(size, tmp_path):
    ranks = in_processes(size, tmp_path, two_steps, CASES) if size > 1 else [two_steps(one(), CASES)]
    expected = {loss: reference(model(), loss, *batch()) for loss in ("clip", "siglip")}
    for rank, (case, (value, found)) in itertools.chain(
        *(((rank, pair) for pair in zip(CASES, results, strict=True)) for rank, results in enumerate(ranks))
    ):
        loss, theirs = expected[case[0]]
        assert value == pytest.approx(loss, abs=1e-12), (case, rank)
        assert_equal(found, theirs, f"{case} on rank {rank}")


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("micro_batch", [None, 4, 5])
def test_dropout_masks_are_those_of_one_pass_in_parts(loss, micro_batch):
    """The towers run part by part with one graph: the second pass must draw what the first drew."""
    images, tokens = batch()
    clip = model(patch_dropout=0.5)
    torch.manual_seed(8)
    size = micro_batch or PAIRS
    parts = [
        (clip.encode_image(i), clip.encode_text(t)) for i, t in zip(images.split(size), tokens.split(size), strict=True)
    ]
    after = torch.get_rng_state()
    features = [torch.nn.functional.normalize(torch.cat(column), dim=-1) for column in zip(*parts, strict=True)]
    criterion = ClipLoss() if loss == "clip" else SigLipLoss()
    expected = criterion(*features, clip.logit_scale.exp(), clip.logit_bias)
    expected.backward()

    step = ContrastiveStep(model(patch_dropout=0.5), one(), loss, micro_batch=micro_batch)
    torch.manual_seed(8)
    assert step.backward(images, tokens).item() == pytest.approx(expected.item(), abs=1e-12)
    assert_equal(gradients(step.module), gradients(clip))
    assert torch.equal(torch.get_rng_state(), after)


def test_trimming_cuts_behind_the_longest_text_and_changes_nothing():
    images, tokens = batch()
    step = ContrastiveStep(model(), one())
    widths = text_widths(step)
    value = step.backward(images, tokens)
    assert widths == [11]
    loss, theirs = reference(model(), "clip", images, tokens)
    assert value.item() == pytest.approx(loss, abs=1e-12)
    assert_equal(gradients(step.module), theirs)
    assert step.module.positional_embedding.grad[11:].abs().max() == 0


def text_widths(step):
    """The lengths at which the text tower runs, as they come."""
    widths = []
    step.module.transformer.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[1]))
    return widths


@pytest.mark.parametrize(("micro_batch", "passes"), [(None, 1), (24, 1), (5, 2)])
def test_texts_go_through_the_tower_by_length_and_change_nothing(micro_batch, passes, monkeypatch):
    """Captions are of 2 to 11 tokens, and shuffled: each part is as long as the longest of its own."""
    monkeypatch.setattr(step_module, "_SMALLEST_CHUNK", 1)
    images, tokens = batch()
    lengths = sorted((tokens == VOCABULARY - 1).int().argmax(1).add(1).tolist())
    step = ContrastiveStep(model(), one(), micro_batch=micro_batch)
    widths = text_widths(step)
    value = step.backward(images, tokens)
    size = 3 if micro_batch != 5 else 5
    assert widths == [max(lengths[first : first + size]) for first in range(0, PAIRS, size)] * passes
    assert sum(widths) < 0.8 * len(widths) * 11
    loss, theirs = reference(model(), "clip", images, tokens)
    assert value.item() == pytest.approx(loss, abs=1e-12)
    assert_equal(gradients(step.module), theirs)


def test_the_loss_alone_is_that_of_a_step():
    images, tokens = batch()
    for micro_batch in (None, 5, 100):
        step = ContrastiveStep(model(), one(), micro_batch=micro_batch)
        value, image, text = step.loss(images, tokens)
        assert value.item() == pytest.approx(reference(model(), "clip", images, tokens)[0], abs=1e-12)
        torch.testing.assert_close(image, step.module.encode_image(images))
        torch.testing.assert_close(text, step.module.encode_text(tokens))
        assert all(parameter.grad is None for parameter in step.module.parameters())


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_bytes_are_normalised_part_by_part(micro_batch):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (PAIRS, 3, 8, 8), generator=generator, dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    step = ContrastiveStep(model().float(), one(), micro_batch=micro_batch, normalise=(mean, std))
    seen = []
    step.module.visual.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    step.backward(images, batch()[1])
    expected = (images / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(torch.cat(seen)[:PAIRS], expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="settings of torch from 2.9 on")
@pytest.mark.parametrize("micro_batch", [None, 7])
@pytest.mark.parametrize(("precision", "towers"), [("fp32", "tf32"), ("bf16", "ieee")])
def test_towers_in_fp32_are_tf32_on_a_gpu_and_the_loss_never_is(micro_batch, precision, towers, monkeypatch):
    """What torch is told while each part computes, forward and backward; it says nothing to a CPU."""
    torch_says = torch.backends.cuda.matmul
    before, seen = torch_says.fp32_precision, {"towers": set(), "loss": set()}
    step = ContrastiveStep(model().float(), one(), precision=precision, micro_batch=micro_batch)
    step.module.visual.register_forward_pre_hook(lambda *_: seen["towers"].add(torch_says.fp32_precision))
    step.module.visual.proj.register_hook(lambda _: seen["towers"].add(torch_says.fp32_precision))
    addmm, addmm_ = torch.addmm, torch.Tensor.addmm_
    watched = lambda own: lambda *arguments: seen["loss"].add(torch_says.fp32_precision) or own(*arguments)  # noqa: E731
    monkeypatch.setattr(torch, "addmm", watched(addmm))
    monkeypatch.setattr(torch.Tensor, "addmm_", watched(addmm_))
    images, tokens = batch()
    step.backward(images.float(), tokens)
    assert seen == {"towers": {towers}, "loss": {"ieee"}}
    assert torch_says.fp32_precision == before


def test_towers_that_read_beyond_the_text_are_not_trimmed():
    images, tokens = batch()
    config = json.loads(json.dumps(CONFIG))
    config["text_cfg"] |= {"pool_type": "last"}
    torch.manual_seed(3)
    step = ContrastiveStep(open_clip.CLIP(**config).double(), one())
    widths = text_widths(step)
    step.backward(images, tokens)
    assert widths == [CONTEXT]


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_checkpointing_gives_the_same_gradients(micro_batch):
    step = ContrastiveStep(model(), one(), checkpointing=True, micro_batch=micro_batch)
    step.backward(*batch())
    assert_equal(gradients(step.module), reference(model(), "clip", *batch())[1])


@pytest.mark.filterwarnings(UNHIDDEN)
def test_compiled_blocks_give_the_same_gradients_and_bare_keys(monkeypatch):
    """All but the generation of machine code, which takes minutes on a busy CPU."""
    torch._dynamo.reset()
    compile_in_place = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block: compile_in_place(block, backend="eager"))
    clip = model()
    step = ContrastiveStep(clip, one(), compile=True, micro_batch=7)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for pairs in (PAIRS, PAIRS - 2):
            clip.zero_grad()
            step.backward(*batch(pairs))
            assert_equal(gradients(clip), reference(model(), "clip", *batch(pairs))[1])
    model().load_state_dict(step.module.state_dict(), strict=True)


@pytest.mark.filterwarnings(UNHIDDEN)
def test_a_compiler_that_fails_is_explained(monkeypatch):
    def fail(graph, inputs):
        raise OSError("no compiler here")

    torch._dynamo.reset()
    compile_in_place = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block: compile_in_place(block, backend=fail))
    with pytest.raises(UsageError, match=r"compile: .* does not work here: .*OSError: no compiler here. Leave"):
        ContrastiveStep(model(), one(), compile=True).backward(*batch())


def test_a_model_without_blocks_cannot_be_compiled():
    with pytest.raises(UsageError, match="compile: this model has no transformer blocks"):
        ContrastiveStep(torch.nn.Linear(2, 2), one(), compile=True)


def test_features_in_bf16_leave_the_loss_in_fp32(monkeypatch):
    seen = {}
    contrastive = step_module.contrastive

    def spy(*arguments):
        seen["features"] = arguments[1].dtype
        seen["loss"] = (value := contrastive(*arguments)).dtype
        return value

    monkeypatch.setattr(step_module, "contrastive", spy)
    images, tokens = batch()
    for micro_batch in (None, 7):
        step = ContrastiveStep(model().float(), one(), precision="bf16", micro_batch=micro_batch)
        value = step.backward(images.float(), tokens)
        loss, theirs = reference(model(), "clip", images, tokens)
        assert seen == {"features": torch.bfloat16, "loss": torch.float32}
        assert value.item() == pytest.approx(loss, rel=2e-2)
        mine, exact = (
            torch.cat([g.double().flatten() for g in found.values()]) for found in (gradients(step.module), theirs)
        )
        assert torch.nn.functional.cosine_similarity(mine, exact, dim=0) > 0.99
        assert {gradient.dtype for gradient in gradients(step.module).values()} == {torch.float32}


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_a_scaler_multiplies_gradients_and_not_the_loss(micro_batch):
    step = ContrastiveStep(model(), one(), micro_batch=micro_batch)
    value = step.backward(*batch(), scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    loss, theirs = reference(model(), "clip", *batch())
    assert value.item() == pytest.approx(loss, abs=1e-12)
    assert_equal(gradients(step.module), {name: 8 * gradient for name, gradient in theirs.items()})


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_a_frozen_tower_stays_without_gradient(micro_batch):
    clip, frozen = model(), model()
    reference(clip, "clip", *batch())
    for parameter in frozen.visual.parameters():
        parameter.requires_grad_(False)
    ContrastiveStep(frozen, one(), micro_batch=micro_batch).backward(*batch())
    assert all(parameter.grad is None for parameter in frozen.visual.parameters())
    trained = {name: gradient for name, gradient in gradients(frozen).items() if gradient is not None}
    assert len(trained) == len([name for name, _ in clip.named_parameters() if not name.startswith("visual.")])
    assert_equal(trained, {name: gradients(clip)[name] for name in trained})


def test_models_that_cannot_be_trained_exactly_are_refused():
    config = json.loads(json.dumps(CONFIG))
    del config["init_logit_bias"]
    with pytest.raises(UsageError, match=r"siglip needs a logit bias.*init_logit_bias: -10"):
        ContrastiveStep(open_clip.CLIP(**config), one(), "siglip")
    config["vision_cfg"] = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    resnet = open_clip.CLIP(**config)
    ContrastiveStep(resnet, one())
    with pytest.raises(UsageError, match=r"BatchNorm's statistics.*such as a ViT"):
        ContrastiveStep(resnet, one(), micro_batch=4)
