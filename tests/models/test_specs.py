"""What users write to name checkpoints, and what they are told when it names none."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clipeval import config as configuration
from clipeval import models
from clipeval.errors import ModelError, UsageError
from clipeval.models import zoo
from clipeval.models.specs import ModelSpec, resolve

EMPTY = configuration.Config()


def message(words: list[str], config: configuration.Config = EMPTY) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(words, config)
    return str(caught.value)


def config_of(tmp_path: Path, document: dict) -> configuration.Config:
    path = tmp_path / "benchmarks.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    return configuration.load(path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of clipeval-train with three checkpoints, the newest not the last by name."""
    folder = tmp_path / "runs" / "b32"
    (folder / "checkpoints").mkdir(parents=True)
    for step in (2, 10, 100):
        (folder / "checkpoints" / f"step_{step}.pt").write_bytes(b"")
    (folder / "latest").write_text("checkpoints/step_10.pt\n", "utf-8")
    return folder


@pytest.mark.parametrize(
    "word", ["ViT-B-32,laion2b_s34b_b79k", "ViT-B-32,laion2b-s34b-b79k", "ViT-B/32,LAION2B_s34B_b79K"]
)
def test_tag_in_any_spelling_of_open_clip(word: str) -> None:
    tag = ModelSpec("ViT-B-32,laion2b_s34b_b79k", "tag", "ViT-B-32", "laion2b_s34b_b79k")
    assert resolve([word, word], EMPTY) == [tag]


def test_file_of_an_architecture(tmp_path: Path) -> None:
    file = tmp_path / "a" / "weights.pt"
    file.parent.mkdir()
    file.write_bytes(b"")
    (spec,) = resolve([f"ViT-B-32,{tmp_path}/a/../a/./weights.pt"], EMPTY)
    assert (spec.kind, spec.arch, spec.path) == ("file", "ViT-B-32", f"{tmp_path}/a/../a/weights.pt")


def test_addresses_on_the_hub() -> None:
    specs = resolve(["ViT-B-32,hf://org/repo/sub/file.pt", "hf-hub:org/name"], EMPTY)
    assert [(spec.kind, spec.arch, spec.pretrained) for spec in specs] == [
        ("hf", "ViT-B-32", "hf://org/repo/sub/file.pt"),
        ("hub", "", "hf-hub:org/name"),
    ]


def test_local_directory(tmp_path: Path) -> None:
    assert "no file open_clip_config.json" in message([f"local-dir:{tmp_path}"])
    (tmp_path / "open_clip_config.json").write_text("{}")
    (spec,) = resolve([f"local-dir:{tmp_path}/"], EMPTY)
    assert spec == ModelSpec(f"local-dir:{tmp_path}", "local-dir", "", f"local-dir:{tmp_path}", str(tmp_path))


def test_run_folder_stands_for_its_newest_checkpoint(run: Path) -> None:
    (spec,) = resolve([f"{run}/"], EMPTY)
    assert spec == ModelSpec(str(run), "trained", "", str(run), str(run / "checkpoints" / "step_10.pt"))


def test_globs_of_runs_and_of_checkpoints_in_natural_order(run: Path) -> None:
    assert [spec.name for spec in resolve([f"{run.parent}/*"], EMPTY)] == [str(run)]
    names = [Path(spec.name).name for spec in resolve([f"{run}/checkpoints/*.pt"], EMPTY)]
    assert names == ["step_2.pt", "step_10.pt", "step_100.pt"]


def test_zoos_that_come_with_clipeval() -> None:
    paper = resolve(["cherti2023"], EMPTY)
    assert len(paper) == 32
    assert sum(spec.kind == "hf" for spec in paper) == 29
    assert [spec.name for spec in paper if spec.kind == "tag"] == [
        "ViT-B-32-quickgelu,openai",
        "ViT-B-16-quickgelu,openai",
        "ViT-L-14-quickgelu,openai",
    ]
    assert len(resolve(["openai"], EMPTY)) == 9
    assert len(resolve(["open_clip", "openai", "laion", "datacomp"], EMPTY)) == len(zoo.members("open_clip"))


def test_names_and_overrides_of_a_configuration(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        {
            "models": [
                {
                    "name": "mine",
                    "arch": "ViT-B-32",
                    "pretrained": "laion2b_e16",
                    "source": "Secret",
                    "samples_seen": 5,
                },
                {"spec": "hf-hub:org/name"},
                "pair",
            ],
            "zoos": {"pair": ["mine", "ViT-B-16,laion400m_e32"], "both": ["pair", {"spec": "ViT-L-14,laion400m_e32"}]},
        },
    )
    overrides = (("source", "Secret"), ("samples_seen", 5.0))
    assert [spec.name for spec in resolve([], config)] == ["mine", "hf-hub:org/name", "ViT-B-16,laion400m_e32"]
    assert resolve(["mine"], config) == [ModelSpec("mine", "tag", "ViT-B-32", "laion2b_e16", "", overrides)]
    assert [spec.name for spec in resolve(["both"], config)] == [
        "mine",
        "ViT-B-16,laion400m_e32",
        "ViT-L-14,laion400m_e32",
    ]


def test_an_unnamed_entry_is_found_by_its_spec(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"models": [{"spec": "ViT-B-32,laion2b_e16", "source_family": "Mine"}]})
    assert resolve(["ViT-B-32,laion2b_e16"], config)[0].overrides == (("source_family", "Mine"),)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ViT-B-33,openai", "'ViT-B-33' is not an architecture of open_clip. Did you mean 'ViT-B-32'?"),
        (
            "ViT-B-32,laion2b_s34b",
            "'laion2b_s34b' is not a tag of ViT-B-32. Did you mean 'laion2b_s34b_b79k'?",
        ),
        ("ViT-B-32-quickgelu,laion2b_s34b_b79k", "is not a tag of ViT-B-32-quickgelu. It is one of ViT-B-32."),
        (
            "ViT-B-32,openai",
            "'openai' was trained with QuickGELU, but ViT-B-32 computes GELU, which gives wrong results without an "
            "error. Use ViT-B-32-quickgelu,openai",
        ),
        ("ViT-B-32,no/such/file.pt", "the file 'no/such/file.pt' does not exist."),
        ("ViT-B-32,absent.safetensors", "the file 'absent.safetensors' does not exist."),
        ("ViT-B-32,.", "'.' is a folder"),
        ("ViT-B-32,", "which checkpoint of ViT-B-32?"),
        ("ViT-B-32", "which checkpoint of ViT-B-32? Write 'ViT-B-32,TAG'"),
        ("ViT-B-32,https://example.org/w.pt", "of addresses, only hf://ORG/REPO[@REV]/FILE is read"),
        ("ViT-B-32,hf://org/file.pt", "is not of the form hf://ORG/REPO[@REV]/FILE"),
        ("hf-hub:name", "is not of the form hf-hub:ORG/NAME"),
        ("no/such/run", "the file or run folder 'no/such/run' does not exist."),
        ("no/such/*.pt", "no file matches 'no/such/*.pt'."),
        ("cherti2032", "neither a model nor a zoo of benchmarks.yaml nor a file. Did you mean 'cherti2023'?"),
    ],
)
def test_messages_for_wrong_words(word: str, expected: str) -> None:
    assert expected in message([word])


def test_messages_for_wrong_run_folders(tmp_path: Path, run: Path) -> None:
    assert "it has no file 'latest'" in message([str(tmp_path)])
    (run / "latest").write_text("checkpoints/gone.pt", "utf-8")
    assert "'latest' points to" in message([str(run)]).replace(f"{run}/", "")
    (tmp_path / "model.bin").write_bytes(b"")
    assert "say the architecture: ViT-B-32," in message([str(tmp_path / "model.bin")])


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"x" * 300, b"a/" * 3000, b"x" * 10_000_000, b"a\0b", b"\n", b"../../.."],
)
def test_a_pointer_that_is_none(run: Path, content: bytes) -> None:
    """Binary, too long for a name, for a path or for a pointer, with a NUL, empty, or a folder."""
    (run / "latest").write_bytes(content)
    assert "/latest' " in message([str(run)])
    assert len(message([str(run)])) < 8000


ODD_NAMES = ["x" * 256, "é" * 200, "a/" * 4000, "{", "[", "a\0b", "*" * 300, "\udcff", "x" * 5000 + ".pt"]


@pytest.mark.parametrize("start", ["", "ViT-B-32,", "local-dir:", "runs/"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_that_no_file_can_have(start: str, name: str) -> None:
    assert message([start + name])


@pytest.mark.parametrize("start", ["hf-hub:a/", "ViT-B-32,hf://org/repo/"])
@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("offline", [True, False])
def test_names_that_no_repository_can_have(start: str, name: str, offline: bool) -> None:
    with pytest.raises((UsageError, ModelError)):
        models.describe(*resolve([start + name], EMPTY), offline=offline)


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for others than root: the far end, the system, says no."""

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert "cannot be looked up: Permission denied" in message([f"{tmp_path}/secret.pt"])


def test_words_that_no_path_can_be(tmp_path):
    assert "cannot be looked up: maximum recursion" in message(["*/" * 2 * sys.getrecursionlimit() + "*.pt"])
    config = configuration.Config.model_validate({"models": [{"arch": "ViT-B-32", "pretrained": "x" * 5000}]})
    with pytest.raises(UsageError, match=r"models\[0\].pretrained: 'x+' cannot be looked up: File name too long"):
        resolve([], config)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (
            {"models": ["hf-hub:a/b", "hf-hub:a/c", "hf-hub:a/d", {"arch": "ViT-B-32", "pretrained": "laion2b_s34b"}]},
            "models[3].pretrained: 'laion2b_s34b' is not a tag of ViT-B-32. Did you mean 'laion2b_s34b_b79k'?",
        ),
        (
            {"models": [{"arch": "ViT-B-33", "pretrained": "openai"}]},
            "models[0].arch: 'ViT-B-33' is not an architecture",
        ),
        ({"models": [{"spec": "ViT-B-32,x/y.pt"}]}, "models[0].spec: the file 'x/y.pt' does not exist"),
        ({"models": ["no/such/run"]}, "models[0]: the file or run folder"),
        ({"models": [{"arch": "ViT-B-32"}]}, "models[0]: give either `spec`, or `arch` with `pretrained`"),
        ({"models": [{"name": "two", "spec": "openai"}]}, "models[0].name: 'two' would name 9 checkpoints"),
        ({"models": ["z"], "zoos": {"z": [{"spec": "hf-hub:a"}]}}, "zoos.z[0].spec: 'hf-hub:a' is not of the form"),
        ({"models": ["z"], "zoos": {"z": ["y"], "y": ["z"]}}, "zoos.z: contains itself: z -> y -> z"),
    ],
)
def test_messages_name_the_place_in_the_configuration(tmp_path: Path, document: dict, place: str) -> None:
    assert message([], config_of(tmp_path, document)).startswith(f"{tmp_path / 'benchmarks.yaml'}: {place}")


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    named = [{"name": "x", "spec": "hf-hub:a/b"}, {"name": "x", "spec": "hf-hub:a/c"}]
    assert "two different models are named 'x'" in message([], config_of(tmp_path, {"models": named}))


def test_a_tag_of_a_newer_open_clip_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from clipeval.models import library, specs

    monkeypatch.setattr(specs.metadata, "version", lambda package: "99.0")
    monkeypatch.setattr(library, "is_known", lambda arch, tag="": (arch, tag) in {("ViT-Z", ""), ("ViT-Z", "new_tag")})
    assert resolve(["ViT-Z,new-tag"], EMPTY) == [ModelSpec("ViT-Z,new_tag", "tag", "ViT-Z", "new_tag")]
    assert "is not a tag of ViT-Z" in message(["ViT-Z,old"])


def test_naming_and_listing_import_nothing_heavy() -> None:
    code = (
        "import sys; from clipeval import models, config; models.zoo_table(); models.resolve(['cherti2023'], "
        "config.Config()); print([m for m in ('torch', 'open_clip', 'pandas', 'huggingface_hub') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
