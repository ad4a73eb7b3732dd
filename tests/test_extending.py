"""What docs/extending.md shows works as written, from a package outside; what such packages do wrong is a message."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import add, encoded, picture, tiny_checkpoint
from packages import LONGEST_EXAMPLE, Package, blocks, shown

from clipeval import config, datasets, models
from clipeval.embeddings.texts import TextStore


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Makes packages; what they imported is forgotten afterwards."""
    before = set(sys.modules)

    def make(name: str, **keywords: str) -> Package:
        package = Package(tmp_path / "site" / name, name, **keywords)
        monkeypatch.syspath_prepend(package.root)
        return package

    yield make
    for name in set(sys.modules) - before:
        if name.startswith(("my_extensions", "odd_")):
            del sys.modules[name]


@pytest.fixture
def documented(outside):
    """The package of the document: its entry points are those of its pyproject.toml."""
    import tomllib

    project = tomllib.loads(shown("pyproject.toml"))["project"]
    package = outside(project["name"], version=project["version"])
    package.points = project["entry-points"]
    for name in ("tasks", "metrics", "models", "datasets"):
        package.file(f"my_extensions/{name}.py", shown(f"my_extensions/{name}.py"))
    package.install()
    return package


def npy(*numbers: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(numbers))
    return buffer.getvalue()


LABELS = [k * 7 % 6 for k in range(31)]
REGIONS = [(2, 5, 900)[k * k % 3] for k in range(31)]


@pytest.fixture
def streets(tmp_path):
    """31 images of 6 classes in 2 regions, and a checkpoint."""
    import tarfile

    root = tmp_path / "streets"
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_text("red\ngreen\nblue\nyellow\nmagenta\ncyan\n")
    (root / "test" / "nshards.txt").write_text("1")
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for k, (label, region) in enumerate(zip(LABELS, REGIONS, strict=True)):
            add(tar, f"{k}.png", encoded(picture(k, label)))
            add(tar, f"{k}.cls", str(label).encode())
            add(tar, f"{k}.npy", npy(region, 2000 + k))
    return root, tiny_checkpoint(tmp_path / "t.pt", 1)


def configured(tmp_path: Path, root: Path, **entry: object) -> Path:
    path = tmp_path / "benchmarks.yaml"
    path.write_text(yaml.safe_dump({"datasets": {"streets": {"spec": f"wds:{root}", "train_split": None, **entry}}}))
    return path


def table(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "results.parquet")


def embeddings(checkpoint: Path, entry: dict[str, object]):
    """Unit vectors of all images and of a text, straight from the encoder."""
    import torch

    [spec] = models.resolve([str(checkpoint)], config.packaged())
    encoder = models.load(spec, device="cpu", precision="fp32", offline=True)
    dataset = datasets.open_dataset("streets", config.DatasetEntry.model_validate(entry))
    pixels = np.stack([encoder.pixels(dataset.image(k)) for k in range(len(dataset))])
    images = encoder.encode_images(torch.from_numpy(pixels)).numpy()

    def text(words: str) -> np.ndarray:
        vector = encoder.encode_tokens(encoder.tokenize([words])).numpy()[0]
        return vector / np.linalg.norm(vector)

    return images / np.linalg.norm(images, axis=1, keepdims=True), text, dataset


def test_the_examples_are_short():
    for name, text in blocks().items():
        assert len(text.splitlines()) < LONGEST_EXAMPLE, name
    assert {"pyproject.toml", "my_extensions/tasks.py", "my_extensions/metrics.py", "benchmarks.yaml"} <= set(blocks())


def test_the_documented_package_measures_what_it_says(documented, streets, tmp_path, command):
    root, checkpoint = streets
    text = shown("benchmarks.yaml").replace("/data/streets", str(root))
    (tmp_path / "benchmarks.yaml").write_text(text)
    words = ("clipeval", "run", "-c", tmp_path / "benchmarks.yaml", "-m", checkpoint, "-o", tmp_path / "out")
    code, _, err = command(*words)
    assert code == 0, err
    found = table(tmp_path / "out").set_index("metric")
    assert list(found["task"]) == ["separation"] * 2 + ["zeroshot_classification"] * 4
    entry = yaml.safe_load(text)["datasets"]["streets"]
    images, encode, dataset = embeddings(checkpoint, entry)
    classes = np.stack([encode(f"a {name}") for name in dataset.prompts.classes])
    differences = []
    for image, label in zip(images, LABELS, strict=True):
        scores = [float(image @ own) for own in classes]
        differences.append(scores[label] - max(score for k, score in enumerate(scores) if k != label))
    assert found.loc["separation", "value"] == pytest.approx(np.mean(differences), abs=1e-6)
    present = [float(x @ classes[k]) > float(x @ encode("nothing at all")) for x, k in zip(images, LABELS, strict=True)]
    assert found.loc["presence", "value"] == pytest.approx(np.mean(present))
    heads = np.stack([np.mean([encode(t) for t in own], axis=0) for own in dataset.prompts.texts()])
    heads /= np.linalg.norm(heads, axis=1, keepdims=True)
    hits = (images @ heads.T).argmax(axis=1) == LABELS
    shares = [hits[np.array(REGIONS) == region].mean() for region in set(REGIONS)]
    gap = found.loc["gap"]
    assert gap["value"] == pytest.approx(max(shares) - min(shares))
    assert gap["ci_low"] <= gap["value"] <= gap["ci_high"]
    assert (gap["task_version"], found.loc["presence", "task_version"]) == ("1", "my-extensions 1.0")
    assert set(found["n"]) == {31}
    assert math.isnan(found.loc["separation", "ci_low"])
    assert table(tmp_path / "out")["status"].eq("ok").all()


def test_a_task_works_on_any_data_set_with_t(documented, streets, tmp_path, command):
    root, checkpoint = streets
    code, _, err = command("clipeval", "run", "-m", checkpoint, "-d", f"wds:{root}", "-t", "separation",
                           "--limit", "9", "-o", tmp_path / "out")  # fmt: skip
    assert code == 0, err
    found = table(tmp_path / "out")
    assert found["status"].tolist() == ["limited"] * 2
    assert found["n"].tolist() == [9] * 2


def test_they_are_listed(documented, command):
    _, out, _ = command("clipeval", "list", "tasks", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["separation"]["package"] == "my-extensions 1.0"
    assert rows["separation"]["metrics"] == []
    assert rows["zeroshot_classification"]["package"] == ""
    assert rows["zeroshot_classification"]["metrics"][-1] == "gap"
    _, out, _ = command("clipeval", "list", "tasks")
    assert "gap" in out
    assert "separation" in out
    code, _, err = command("clipeval", "run", "-m", "openai", "-d", "digits", "-t", "seperation")
    assert code == 2
    assert "'seperation' is not a task. Did you mean 'separation'?" in err


def test_another_version_of_the_package_is_measured_again(documented, streets, tmp_path, command):
    root, checkpoint = streets
    entry = {"metadata": ["region", "year"], "main_metric": "gap"}
    words = ("clipeval", "run", "-c", configured(tmp_path, root, **entry), "-m", checkpoint, "-o", tmp_path / "out",
             "-t", "classification", "-t", "separation")  # fmt: skip

    def started() -> dict[str, object]:
        code, _, err = command(*words, "--plan", "--json")
        assert code == 0, err
        return [command(*words)[0], len((tmp_path / "out/ledger.jsonl").read_text().splitlines())]

    first = started()
    assert started() == first  # nothing to do
    documented.version = "1.1"
    documented.install()
    assert started() == [0, first[1] + 2]  # both the task and the metric are of the package
    assert set(table(tmp_path / "out").query("task == 'separation'")["task_version"]) == {"my-extensions 1.1"}


def test_a_main_metric_that_is_named_later_is_measured(streets, tmp_path, command):
    root, checkpoint = streets
    words = ("-m", checkpoint, "-o", tmp_path / "out", "-t", "classification", "-d", "streets")
    lines = []
    for metric, names in (("acc1", 3), ("acc_wg", 4), ("acc_wg", 4), ("F1-macro_all", 4), ("acc5", 3)):
        path = configured(tmp_path, root, metadata=["region", "year"], main_metric=metric)
        assert command("clipeval", "run", "-c", path, *words)[0] == 0
        found = table(tmp_path / "out")
        assert found["metric"].tolist()[:3] == ["acc1", "acc5", "mean_per_class_recall"]
        assert (metric in set(found["metric"]), len(found)) == (True, names)
        lines.append(len((tmp_path / "out/ledger.jsonl").read_text().splitlines()))
    assert np.diff(lines).tolist() == [1, 0, 1, 1]


def test_a_missing_field_fails_the_one_metric(streets, tmp_path, command):
    root, checkpoint = streets
    words = ("-m", checkpoint, "-o", tmp_path / "out", "-t", "classification")
    code, _, err = command("clipeval", "run", "-c", configured(tmp_path, root, main_metric="acc_wg"), *words)
    assert code == 3
    assert "acc_wg needs the field 'region' of the numbers in .npy" in err
    assert table(tmp_path / "out")["status"].tolist() == ["ok", "ok", "ok", "failed"]
    path = configured(tmp_path, root, main_metric="acc_wg", metadata=["region", "year"])
    assert command("clipeval", "run", "-c", path, *words)[0] == 0
    assert table(tmp_path / "out")["status"].tolist() == ["ok"] * 4


def test_a_main_metric_that_nothing_gives_is_refused(streets, tmp_path, command):
    root, checkpoint = streets
    path = configured(tmp_path, root, main_metric="acc_worst_regoin")
    code, _, err = command("clipeval", "run", "-c", path, "-m", checkpoint, "-o", tmp_path / "out")
    assert code == 2
    assert "datasets.streets.main_metric: 'acc_worst_regoin' is no metric of a task" in err
    assert "Did you mean 'acc_worst_region'?" in err


ODD = """
import sys
import numpy as np

def raises(inputs): raise KeyError("a\\nb")
def leaves(inputs): sys.exit(5)
def prints(inputs): print("{"); return {"printed": 1}
def nothing(inputs): return None
def empty(inputs): return {}
def text(inputs): return {"a": "0.5"}
def truth(inputs): return {"a": True}
def nan(inputs): return {"good": 0.5, "a": float("nan")}
def huge(inputs): return {"a": 10**400}
def many(inputs): return {str(k): k for k in range(5000)}
def unnamed(inputs): return {3: 0.5}
def control(inputs): return {"a\\x1b[31m": 0.5}
def vector(inputs): return {"a": np.ones(2)}
def words(inputs): return {"a": inputs.texts("abc").sum()}
def spoils(inputs):
    inputs.images()[:] = np.nan
    inputs.dataset.labels[:] = 0
    inputs.texts(["a photo of a red."])[:] = 7
    return {"numbers": np.float32(0.25), "whole": np.int64(-3)}
no_function = 3
"""
LEAVING = "import sys\nprint('{')\nsys.exit(3)\n"
MESSAGES = {
    "raises": r"raises: odd_tasks:raises of odd-tasks 2 failed: KeyError: 'a\\nb'",
    "leaves": r"failed: RuntimeError: it asked to end the program \(5\)",
    "nothing": r"gave None and not \{metric: value\}",
    "empty": r"gave \{\} and not \{metric: value\}",
    "text": r"gave a = '0.5', which is no finite number",
    "truth": r"gave a = True, which is no finite number",
    "nan": r"gave a = nan, which is no finite number",
    "huge": r"failed: OverflowError",
    "many": r"gave 5,000 values; at most 1,000 are kept",
    "unnamed": r"gave a value of 3, which is no name of a metric",
    "control": r"gave a value of 'a\\x1b\[31m', which is no name of a metric",
    "vector": r"failed: TypeError",
    "words": r"failed: TypeError: texts\(\) takes a list of texts",
    "no_function": r"odd_tasks:no_function of odd-tasks 2 is no function",
    "absent": r"odd_tasks:absent of odd-tasks 2 cannot be imported: module 'odd_tasks' has no attribute 'absent'",
    "leaving": r"leaving: odd_leaving:run of odd-tasks 2 cannot be imported: it asked to end the program \(3\)",
    "elsewhere": r"odd_elsewhere:run of odd-tasks 2 cannot be imported: No module named 'odd_elsewhere'",
}


@pytest.fixture
def odd(outside):
    package = outside("odd-tasks", version="2")
    (package.root / "odd_tasks.py").write_text(ODD)
    (package.root / "odd_leaving.py").write_text(LEAVING)
    names = [*MESSAGES, "prints", "spoils"]
    addresses = {name: f"odd_tasks:{name}" for name in names} | {"elsewhere": "odd_elsewhere:run"}
    addresses["leaving"] = "odd_leaving:run"
    package.points = {"clipeval.tasks": addresses, "clipeval.metrics": {}}
    package.install()
    return package


def test_what_a_task_of_another_package_does_wrong_fails_its_own_cell(odd, streets, tmp_path, command):
    root, checkpoint = streets
    tasks = [word for name in (*MESSAGES, "spoils", "prints") for word in ("-t", name)]
    words = ("clipeval", "run", "-m", checkpoint, "-d", f"wds:{root}", "-o", tmp_path / "out")
    code, out, err = command(*words, *tasks, "-t", "classification", "--json")
    assert code == 3
    json.loads(out)  # what a task prints is not there
    assert "Traceback" not in err
    found = table(tmp_path / "out")
    failed = found[found["status"] == "failed"].set_index("task")["error"]
    assert set(failed.index) == set(MESSAGES)
    for name, message in MESSAGES.items():
        assert re.search(message, failed[name]), (name, failed[name])
    good = found[found["status"] == "ok"].set_index("metric")["value"]
    assert good[["numbers", "whole", "printed"]].tolist() == [0.25, -3, 1]
    assert command(*words[:-1], tmp_path / "plain", "-t", "classification")[0] == 0
    plain = table(tmp_path / "plain").set_index("metric")["value"]
    assert good[plain.index].tolist() == plain.tolist(), "what a task was given to change was its own"


def test_texts_asked_for_are_stored_and_counted_where_they_are_cut(outside, streets, tmp_path, command, monkeypatch):
    root, checkpoint = streets
    package = outside("odd-texts")
    words = "[f'word {k} ' + 'long ' * (100 * (k == 4)) for k in range(5)]"
    (package.root / "odd_texts.py").write_text(f"def run(inputs): return {{'a': len(inputs.texts({words}))}}\n")
    package.points = {"clipeval.tasks": {"asks": "odd_texts:run"}}
    package.install()
    encoded_texts = []
    added = TextStore.add
    monkeypatch.setattr(
        TextStore, "add", lambda self, texts, rows: (encoded_texts.extend(texts), added(self, texts, rows))
    )
    line = ("clipeval", "run", "-m", checkpoint, "-d", f"wds:{root}", "-t", "asks")
    assert command(*line, "-o", tmp_path / "a")[0] == 0
    assert len(encoded_texts) == 5
    assert "1 of 5 prompts were cut at 77 tokens" in table(tmp_path / "a")["notes"].iloc[0]
    assert command(*line, "-o", tmp_path / "b")[0] == 0
    assert len(encoded_texts) == 5


METRICS = """
import numpy as np

def first(scores, labels, metadata):
    assert scores.shape == (31, 6) and scores.dtype == np.float32 and metadata == {}
    return (scores.argmax(1) == labels).mean()
def raises(scores, labels, metadata): return metadata["region"].mean()
def nan(scores, labels, metadata): return np.nan
def whole(scores, labels, metadata):
    if len(set(labels.tolist())) < 7: raise ValueError("a class is missing")
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("first", ""),
        ("raises", r"raises: odd_metrics:raises of odd-metrics 1\.0 failed: KeyError: 'region'"),
        ("nan", r"gave nan = nan, which is no finite number"),
        ("whole", r"failed: ValueError: a class is missing"),
    ],
)
def test_a_metric_of_another_package_may_fail_alone(outside, streets, tmp_path, command, name, message):
    root, checkpoint = streets
    package = outside("odd-metrics")
    (package.root / "odd_metrics.py").write_text(METRICS)
    package.points = {"clipeval.metrics": {name: f"odd_metrics:{name}"}}
    package.install()
    path = configured(tmp_path, root, main_metric=name)
    code, _, err = command("clipeval", "run", "-c", path, "-m", checkpoint, "-o", tmp_path / "out")
    found = table(tmp_path / "out").set_index("metric")
    assert found["status"].tolist() == ["ok"] * 3 + ["failed" if message else "ok"]
    assert code == (3 if message else 0), err
    if message:
        assert re.search(message, found.loc[name, "error"])
    else:
        assert found.loc[name, "value"] == found.loc["acc1", "value"]
        # of 31 of 31 samples with replacement, as those of the accuracy
        assert abs(found.loc[name, "ci_low"] - found.loc["acc1", "ci_low"]) < 0.1


def test_built_in_names_win_and_two_of_a_name_are_refused(outside, streets, tmp_path, command):
    root, checkpoint = streets
    package = outside("odd-names")
    (package.root / "odd_names.py").write_text("def run(*given): raise SystemError\n")
    package.points = {
        "clipeval.tasks": {"zeroshot_classification": "odd_names:run", "probe": "odd_names:run"},
        "clipeval.metrics": {"acc1": "odd_names:run"},
    }
    package.install()
    path = configured(tmp_path, root, main_metric="acc1")
    assert command("clipeval", "run", "-c", path, "-m", checkpoint, "-o", tmp_path / "out")[0] == 0
    _, out, _ = command("clipeval", "list", "tasks", "--json")
    assert not any(row["package"] for row in json.loads(out))
    other = outside("odd-others")
    other.points = {"clipeval.tasks": {"twice": "odd_others:run"}, "clipeval.metrics": {"acc1": "odd_others:run"}}
    package.points["clipeval.tasks"]["twice"] = "odd_names:run"
    for brought in (package, other):
        brought.install()
    assert command("clipeval", "run", "-c", path, "-m", checkpoint, "-o", tmp_path / "again")[0] == 0
    code, _, err = command("clipeval", "run", "-m", checkpoint, "-d", "digits", "-t", "twice")
    assert code == 2
    assert re.search(r"odd-\w+ 1\.0 and odd-\w+ 1\.0 both bring 'twice' \(clipeval\.tasks\)", err)
