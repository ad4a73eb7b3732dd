"""Encoders that functions return: of a module, and of a package that brings its own kind of models."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import CPU
from packages import Package, shown
from PIL import Image

import clipeval
from clipeval import config, models
from clipeval.errors import ModelError, UsageError

ENCODER = """
import numpy as np
import torch

class Encoder:
    def __init__(self, dim=8, seed=0, **more):
        self.embed_dim, self.record_shape = dim, (4, 6)
        self.identity = f"grey {dim} {seed}"
        self.weights = np.random.default_rng(seed).standard_normal((24, dim))
        self.__dict__ |= more

    def pixels(self, image):
        assert image.mode == "RGB"
        return np.asarray(image.convert("L").resize((6, 4)))

    def encode_images(self, pixels):
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (4, 6)
        return pixels.reshape(len(pixels), -1) / 255.0 @ self.weights

    def encode_texts(self, texts):
        assert isinstance(texts, list)
        letters = [np.frombuffer(text.encode(), np.uint8) % self.embed_dim for text in texts]
        rows = [np.bincount(found, minlength=self.embed_dim) for found in letters]
        return torch.tensor(np.stack(rows), dtype=torch.float64, requires_grad=True)

def make(dim="8", seed="0"):
    return Encoder(int(dim), int(seed), facts={"source": "toy", "samples_seen": 5, "params": 24 * int(dim)})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a module of a fresh name into the working folder, and gives that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    count = 0

    def write(more: str = "") -> str:
        nonlocal count
        count += 1
        name = f"own_{tmp_path.name}_{count}"
        (tmp_path / f"{name}.py").write_text(ENCODER + textwrap.dedent(more))
        return name

    return write


def loaded(word: str) -> models.Encoder:
    [spec] = models.resolve([word], config.packaged())
    return models.load(spec, **CPU)


def refusal(word: str) -> str:
    def use() -> None:
        encoder = loaded(word)
        encoder.pixels(Image.new("RGB", (9, 9)))
        encoder.encode_images(torch.zeros(3, 4, 6, dtype=torch.uint8))
        encoder.tokenized(["a", "b"]).encode(np.array([1, 0]))

    with pytest.raises((ModelError, UsageError)) as caught:
        use()
    return str(caught.value)


def test_a_function_is_measured_like_all_others(module: Callable[..., str], tmp_path: Path) -> None:
    """Against the same arithmetic by hand; texts are given back in their own order though sorted by length."""
    word = f"python:{module()}:make?dim=5&seed=3"
    table = clipeval.run(models=word, datasets="digits", tasks="classification", out=tmp_path / "out", batch_size=7)
    assert set(table.status) == {"ok"}
    namespace: dict = {}
    exec(compile(ENCODER, "own", "exec"), namespace)
    own = namespace["Encoder"](5, 3)
    from clipeval import datasets

    digits = datasets.open_dataset("digits", config.packaged().datasets["digits"])
    images = own.encode_images(np.stack([own.pixels(digits.image(k)) for k in range(len(digits))]))
    assert digits.prompts
    assert digits.labels is not None
    classes = []
    for prompts in digits.prompts.texts():
        rows = own.encode_texts(prompts).detach().numpy()
        mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)
        classes.append(mean / np.linalg.norm(mean))
    right = (images @ np.array(classes).T).argmax(1) == digits.labels
    assert table.set_index("metric").value["acc1"] == right.mean()
    row = table.iloc[0]
    assert (row.model, row.source, row.samples_seen, row.params) == (word, "toy", 5, 120)


def test_the_same_again_is_done_and_another_identity_is_not(module: Callable[..., str], command: Any) -> None:
    name = module()

    def run(word: str) -> list[str]:
        asked = ("clipeval", "run", "-m", word, "-d", "digits", "-t", "classification", "-o", "out")
        _, planned, _ = command(*asked, "--plan", "--json")
        assert command(*asked)[0] == 0
        return [cell["state"] for cell in json.loads(planned)]

    assert run(f"python:{name}:make") == ["to do"]
    assert run(f"python:{name}:make") == ["done"]
    assert run(f"python:{name}:make?seed=1") == ["to do"]
    assert run(f"python:{name}:make?seed=1&dim=9") == ["to do"]
    values = pd.read_csv("out/results.csv").query("metric == 'acc1'").set_index("model").value
    assert len(set(values)) == 3


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("def f(): return 5", "which has no `pixels`. An encoder has identity, embed_dim, record_shape"),
        ("def f(): return Encoder(identity='')", "`identity` is ''; expected text that changes whenever"),
        ("def f(): return Encoder(identity=b'x')", "`identity` is b'x'"),
        ("def f(): return Encoder(embed_dim=0)", "`embed_dim` is 0; expected a number of at least 1"),
        ("def f(): return Encoder(record_shape=(4, True))", "`record_shape` is (4, True)"),
        ("def f(): return Encoder(record_shape=(1 << 20, 1 << 20))", "expected at most"),
        ("def f(): return Encoder(record_shape=(4, 7))", "`pixels` gives [4, 6] uint8; expected [4, 7] uint8"),
        ("def f(): return Encoder(pixels=3)", "`pixels` is 3; expected a function"),
        ("def f(): return Encoder(pixels=lambda i: np.zeros((4, 6)))", "gives [4, 6] float64; expected [4, 6] uint8"),
        ("def f(): return Encoder(encode_images=lambda p: p[:, 0])", "`encode_images` gives [3, 6]; expected [3, 8]"),
        ("def f(): return Encoder(encode_texts=lambda t: 1 / 0)", "fails in `encode_texts`: ZeroDivisionError"),
        ("def f(): return Encoder(encode_texts=lambda t: [t])", "fails in `encode_texts`"),
        (
            "def f(): return Encoder(facts={'samples_seen_from': 'me'})",
            "is 'me'; expected one of measured, tag",
        ),
        ("def f(): return Encoder(facts={'model': 'x'})", "`facts` is {'model': 'x'}; expected a mapping with some of"),
        ("def f(): raise RuntimeError('no key')", "fails to make an encoder: RuntimeError: no key"),
        ("def f(): raise SystemExit(0)", "fails to make an encoder: RuntimeError: it asked to end the program (0)"),
        ("def f(needed): return Encoder()", "missing 1 required positional argument: 'needed'"),
        ("f = 3", "is no function"),
        ("def f(): return 1\nraise SystemExit(5)", "cannot be imported: it asked to end the program (5)"),
        ("f = None; 1 / 0", "cannot be imported: division by zero"),
        ("g = 1", "cannot be imported"),
        (
            "import itertools\nc = itertools.count()\ndef f(): return Encoder(identity=f'{next(c)}')\n"
            "def g(): return Encoder(identity='g')",
            "returns an encoder of another identity than before",
        ),
    ],
)
def test_what_is_wrong_with_an_encoder_is_named(module: Callable[..., str], more: str, says: str) -> None:
    name = module(more)
    word = f"python:{name}:f"
    if "def g" in more:  # another one between plan and measurement
        opened, other = (
            models.open_checkpoint(spec, offline=True)
            for spec in models.resolve([word, f"python:{name}:g"], config.packaged())
        )
        assert other.identity
        with pytest.raises(ModelError) as caught:
            models.load(opened, **CPU)
        assert says in str(caught.value)
        return
    said = refusal(word)
    assert says in said
    assert word in said or name in said


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("python:", "is not of the form python:PACKAGE.MODULE:FUNCTION[?key=value&...]"),
        ("python:module", "is not of the form"),
        ("python:module:f?x", "is not of the form"),
        ("python:module:f?x=1&x=2", "a key is there twice"),
        ("python:module:f?1=2", "'1': no name of a parameter"),
        ("python:os;rm:f", "is not of the form"),
        ("python:no_such_module_here:f", "cannot be imported: No module named 'no_such_module_here'"),
    ],
)
def test_words_that_name_no_function(word: str, says: str) -> None:
    assert says in refusal(word)


def test_values_are_text(module: Callable[..., str]) -> None:
    name = module("def f(**values): return Encoder(identity=repr(sorted(values.items())))")
    [spec] = models.resolve([f"python:{name}:f?a=1&b=%26+x&c="], config.packaged())
    assert models.open_checkpoint(spec, offline=True).own.text == "[('a', '1'), ('b', '& x'), ('c', '')]"


def test_a_configuration_names_no_code_unless_allowed(module: Callable[..., str], tmp_path: Path, command: Any) -> None:
    """Neither as a model, nor in a zoo, nor under a name that -m gives."""
    marker = tmp_path / "imported"
    name = module(f"open({str(marker)!r}, 'w').close()")
    word = f"python:{name}:make"
    yaml = tmp_path / "b.yaml"
    yaml.write_text(f"models: [{{name: mine, spec: '{word}'}}]\nzoos: {{all: ['{word}']}}\n")
    asked = ("clipeval", "run", "-c", str(yaml), "-d", "digits", "-t", "classification", "-o", "out", "--limit", "9")
    for words in ((), ("-m", "mine"), ("-m", "all")):
        code, _, said = command(*asked, *words)
        assert code == 2
        assert "names code to run. Where you trust this file, allow it: --allow-python" in " ".join(said.split())
        assert not marker.exists()
    assert command(*asked, "--allow-python")[0] == 0
    assert marker.exists()
    assert set(pd.read_csv("out/results.csv").model) == {"mine"}


@pytest.fixture
def package(module: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package outside that brings the kind of models ``toy:``, and the one of the documentation."""
    name = module("def f(reference): return Encoder(int(reference))\ndef bad(reference): return reference")
    toy = Package(tmp_path, "toy-models", "1.2")
    toy.points = {"clipeval.models": {"toy": f"{name}:f", "broken": f"{name}:bad", "gone": f"{name}:no"}}
    toy.install()
    documented = Package(tmp_path / "site", "my-extensions", "1.0")
    documented.points = {"clipeval.models": {"average": "my_extensions.models:make"}}
    documented.file("my_extensions/models.py", shown("my_extensions/models.py"))
    documented.install()
    # syspath_prepend beside a replaced list would leave both folders in the path for ever
    monkeypatch.setattr(sys, "path", [str(documented.root), *sys.path])
    return name


def test_the_model_of_the_documentation(package: str, tmp_path: Path) -> None:
    """As a kind of its own, and as a function without a package; both are the same arithmetic."""
    words = ["average:16", "python:my_extensions.models:make?words=16"]
    table = clipeval.run(models=words, datasets="digits", tasks="classification", out=tmp_path / "out")
    assert set(table.status) == {"ok"}
    assert set(table.params) == {0}
    first, second = (table[table.model == word].set_index("metric").value for word in words)
    assert first.equals(second)


def test_a_package_brings_a_kind_of_models(package: str, tmp_path: Path) -> None:
    yaml = tmp_path / "b.yaml"  # installed code may be named anywhere
    yaml.write_text("models: [{name: five, spec: 'toy:5', source: S}, 'toy:6']\n")
    table = clipeval.run(datasets="digits", tasks="classification", out=tmp_path / "out", config=yaml, limit=20)
    assert set(table.model) == {"five", "toy:6"}
    assert set(table.query("model == 'five'").source) == {"S"}
    assert set(table.status) == {"limited"}
    assert "broken: broken:x" not in (said := refusal("broken:x"))
    assert "toy-models 1.2 returns <str>, which has no `pixels`" in said
    assert "of toy-models 1.2 cannot be imported" in refusal("gone:x")
    assert "what of it? Write toy:REFERENCE" in refusal("toy:")
    assert "Did you mean 'toy" in refusal("tyo:5") or "is neither a model" in refusal("tyo:5")


def test_fp32_is_exact_in_functions_too_and_the_rest_is_theirs(module: Callable[..., str], tmp_path: Path) -> None:
    name = module(
        """
        seen = []

        class Watching(Encoder):
            def encode_images(self, pixels):
                seen.append((torch.backends.cudnn.conv.fp32_precision, torch.is_autocast_enabled("cpu")))
                return super().encode_images(pixels)

        def watch():
            return Watching()
        """
    )
    for precision in ("fp32", "bf16"):
        told: dict[str, Any] = {"precision": precision, "compile": precision == "bf16", "limit": 5}
        table = clipeval.run(f"python:{name}:watch", "digits", "classification", out=tmp_path / precision, **told)
        assert set(table.status) == {"limited"}
        remarks = json.loads(table.notes.iloc[0]).get("remarks", []) if isinstance(table.notes.iloc[0], str) else []
        found = [sentence for sentence in remarks if "is a function" in sentence]
        assert len(found) == (0 if precision == "fp32" else 2), remarks
    assert sys.modules[name].seen == [("ieee", False)] * 2
    assert torch.backends.cudnn.conv.fp32_precision == "tf32", "as torch begins"
