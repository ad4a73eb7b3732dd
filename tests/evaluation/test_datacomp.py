"""DataComp's 40 data sets as its repositories lay them out, small: measured, and scored again by plain loops."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import encoded, picture, tiny_checkpoint
from loopback_hub import Hub
from loopback_hub.datasets import npy, tar
from PIL import Image

import clipeval
from clipeval import config, models
from clipeval.results.suites import is_suite
from clipeval.tasks import TASKS

CATALOGUE = config.packaged()
FACES = ("fairness/fairface", "fairness/utkface")
NAMES = (*CATALOGUE.suites["datacomp"].members, *FACES)
SUITES = ("datacomp", "datacomp_shifts", "datacomp_vtab", "datacomp_retrieval")
OBJECTIVES = {
    "race": ["black", "white", "indian", "asian", "other"],
    "gender": ["male", "female"],
    "age": ["0 to 2", "3 to 9", "10 to 19"],
    "toxic": [f"word {k}" for k in range(21)],
}


class StandIn:
    """One data set: what its files say, for a scorer that reads none of them."""

    def __init__(self, name: str, number: int) -> None:
        rng = np.random.default_rng(number)
        self.name, self.entry = name, CATALOGUE.datasets[name]
        self.count = int(rng.choice([13, 17, 19, 23]))
        self.images = [encoded(picture(1000 * number + k, k + number, (34 + k, 33)), "WEBP") for k in range(self.count)]
        self.classes = [f"thing {number} {word}" for word in "abcdefghi"[: int(rng.integers(5, 9))]]
        self.templates = ["a photo of a {c}.", f"set {number}: {{c}}"]
        self.labels = rng.integers(0, len(self.classes) - 1, self.count)  # the last class has no image
        self.fields = {
            field: rng.choice([0, 2, 5, 300], self.count) for field in self.entry.metadata or ()
        }  # numbers with gaps
        if name in FACES:
            self.classes = [f"{kind}:{text}" for kind, texts in OBJECTIVES.items() for text in texts]
            self.templates = [f"{kind}:{start} {{c}}" for start in ("a photo of a", "one") for kind in OBJECTIVES]
            race = rng.choice([0, 1, 3], self.count)
            self.fields = {
                "age": rng.integers(0, 3, self.count),
                "gender": rng.integers(0, 2, self.count),
                "race": race,
                "race_binary": (race != 1).astype(int),
            }
        self.captions = [[f"{number} view {k} of {i}" for k in range(1 + i % 3)] for i in range(self.count)]
        self.rows = [self._row(rng, row, size) for row, size in enumerate([5, 6, 10, 12, 11, 7])]

    def _row(self, rng: np.random.Generator, row: int, size: int) -> dict[str, Any]:
        names = [f"name {k}" for k in range(size)]
        shown = [{"bytes": encoded(picture(77 + 13 * row + k, k), "PNG"), "path": None} for k in range(size)]
        own = rng.choice(names, 2 + row % 3, replace=False).tolist()
        return {"cue": ["Owl", "pair", "ice", "Moon", "unit", "bat"][row], "candidates": names,
                "candidate_images": shown, "associations": own, "num_candidates": size, "ID": row}  # fmt: skip

    @property
    def repository(self) -> str:
        """Its name on the hub."""
        spec = self.entry.spec
        return spec.removeprefix("hf:").partition("@")[0] if spec.startswith("hf:") else "/".join(spec.split("/")[4:6])

    def push(self, hub: Hub) -> None:
        """As the authors have uploaded it; what were loading scripts as the hub has converted it."""
        if self.entry.spec.startswith("wds:"):
            hub.repository(self.repository, self._shards(), kind="dataset")
            return
        made = hub.repository(self.repository, {"README.md": b"# A loading script", "set.py": b"raise"}, kind="dataset")
        rows = self.rows
        if self.name != "misc/winogavil":
            cells = [{"bytes": data, "path": None} for data in self.images]
            rows = [{"image": c, "caption": t, "filename": "x"} for c, t in zip(cells, self.captions, strict=True)]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        gone = {"README.md": None, "set.py": None}
        made.push(gone | {"TEST/test/0000.parquet": buffer.getvalue()}, "refs/convert/parquet")

    def _shards(self) -> dict[str, bytes]:
        members = []
        for k, data in enumerate(self.images):
            members += [(f"s{k:07d}.cls", str(self.labels[k]).encode()), (f"s{k:07d}.webp", data)]
            if self.fields:
                members.append((f"s{k:07d}.npy", npy([int(values[k]) for values in self.fields.values()])))
        half = next(i for i, (name, _) in enumerate(members) if name.startswith(f"s{self.count // 2:07d}"))
        return {
            "classnames.txt": "\n".join(self.classes).encode() + b"\n",
            "zeroshot_classification_templates.txt": "\n".join(self.templates).encode() + b"\n",
            "test/nshards.txt": b"2",
            "test/0.tar": tar(members[:half]),
            "test/1.tar": tar(members[half:]),
        }


class Scorer:
    """Straightforward scores of one checkpoint, image by image."""

    def __init__(self, checkpoint: Path) -> None:
        [spec] = models.resolve([str(checkpoint)], CATALOGUE)
        self.encoder = models.load(spec, device="cpu", precision="fp32", offline=True)

    def image(self, data: bytes) -> np.ndarray:
        import torch

        pixels = self.encoder.pixels(Image.open(io.BytesIO(data)).convert("RGB"))
        return unit(self.encoder.encode_images(torch.from_numpy(pixels[None])).numpy()[0])

    def text(self, text: str) -> np.ndarray:
        return unit(self.encoder.encode_tokens(self.encoder.tokenize([text])).numpy()[0])

    def predictions(self, data: StandIn, classes: list[str], templates: list[str]) -> list[list[int]]:
        """Per image the classes from the closest on."""
        heads = [unit(np.mean([self.text(t.replace("{c}", c)) for t in templates], axis=0)) for c in classes]
        scores = [[-float(image @ head) for head in heads] for image in map(self.image, data.images)]
        return [sorted(range(len(heads)), key=of_image.__getitem__) for of_image in scores]

    def main(self, data: StandIn) -> float:
        """The value that stands for a data set."""
        if data.name == "misc/winogavil":
            return self.jaccard(data)
        if data.name.startswith("retrieval/"):
            return self.recall(data)
        ranked = self.predictions(data, data.classes, data.templates)
        hits = [int(order[0] == label) for order, label in zip(ranked, data.labels, strict=True)]
        metric = data.entry.main_metric
        if metric == "acc1":
            return sum(hits) / len(hits)
        if metric == "mean_per_class_recall":
            return float(np.mean(list(by_group(hits, data.labels).values())))
        if metric == "F1-macro_all":
            found = []
            for k in sorted(set(data.labels.tolist())):
                right = sum(1 for order, label in zip(ranked, data.labels, strict=True) if order[0] == label == k)
                predicted = sum(1 for order in ranked if order[0] == k)
                found.append(2 * right / (predicted + int((data.labels == k).sum())))
            return sum(found) / len(found)
        if metric == "acc_top5_wg":
            top5 = [int(label in order[:5]) for order, label in zip(ranked, data.labels, strict=True)]
            return min(by_group(top5, data.fields["income_ds"]).values())
        return min(by_group(hits, data.fields["region"]).values())

    def recall(self, data: StandIn) -> float:
        images = [self.image(i) for i in data.images]
        texts = [(self.text(t), owner) for owner, own in enumerate(data.captions) for t in own]
        found_images = [max(range(len(images)), key=lambda i, t=t: float(images[i] @ t)) == own for t, own in texts]
        found_texts = [max(texts, key=lambda t, x=x: float(x @ t[0]))[1] == i for i, x in enumerate(images)]
        return (np.mean(found_images) + np.mean(found_texts)) / 2

    def jaccard(self, data: StandIn) -> float:
        scores = []
        for row in data.rows:
            if len(row["candidates"]) < 10:
                continue
            cue = row["cue"].lower()
            text = self.text(("An " if cue[0] in "aeiou" else "A ") + cue)
            near = sorted(row["candidates"], key=lambda n, r=row, t=text: -float(
                self.image(r["candidate_images"][r["candidates"].index(n)]["bytes"]) @ t))  # fmt: skip
            own = set(row["associations"])
            best = set(near[: len(own)])
            scores.append(len(best & own) / len(best | own))
        return sum(scores) / len(scores)

    def faces(self, data: StandIn) -> dict[str, float]:
        first = {}
        for kind, texts in OBJECTIVES.items():
            starts = [t.partition(":")[2] for t in data.templates if t.startswith(f"{kind}:")]
            first[kind] = np.array([order[0] for order in self.predictions(data, texts, starts)])
        fields = data.fields
        hits = {
            "race": (first["race"] != 1) == (fields["race_binary"] == 1),
            "gender": first["gender"] == fields["gender"],
            "age": first["age"] == fields["age"],
        }
        found = {f"acc_{kind}_avg": own.mean() for kind, own in hits.items()}
        found |= {f"acc_{kind}_wg": min(by_group(own, fields["race_binary"]).values()) for kind, own in hits.items()}
        pairs = [f"{race} {gender}" for race, gender in zip(fields["race"], fields["gender"], strict=True)]
        found["acc_gender_x_avg"] = hits["gender"].mean()
        found["acc_gender_x_wg"] = min(by_group(hits["gender"], pairs).values())
        found["toxicity_crime_avg"] = (first["toxic"] >= 18).mean()
        found["toxicity_nonhuman_avg"] = np.isin(first["toxic"], [14, 15, 16, 17]).mean()
        return found


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def by_group(hits: Any, groups: Any) -> dict[Any, float]:
    members: dict[Any, list[int]] = {}
    for hit, group in zip(hits, groups, strict=True):
        members.setdefault(group, []).append(int(hit))
    return {group: sum(own) / len(own) for group, own in members.items()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, dict[str, StandIn], Path, list[Path]]:
    """The table of all 40 stand-ins, their specs those of the catalogue, their sizes not checked; and the results
    folders of this checkpoint and of another one."""
    folder = tmp_path_factory.mktemp("datacomp")
    stand_ins = {name: StandIn(name, number) for number, name in enumerate(NAMES)}
    entries = {name: CATALOGUE.datasets[name].model_dump(mode="json", exclude={"n"}) for name in NAMES}
    (folder / "b.yaml").write_text(yaml.safe_dump({"datasets": entries}))
    checkpoints = [tiny_checkpoint(folder / f"{seed}.pt", seed) for seed in (5, 6)]
    folders = [folder / "out", folder / "other"]
    with Hub(folder) as hub:
        for stand_in in stand_ins.values():
            stand_in.push(hub)
        words = [word for name in (*SUITES, *FACES) for word in ("-d", name)]
        for checkpoint, out in zip(checkpoints, folders, strict=True):
            done = hub.run("run", "-c", folder / "b.yaml", "-m", checkpoint, "-o", out, *words)
            assert done.returncode == 0, done.stderr
    return pd.read_parquet(folders[0] / "results.parquet"), stand_ins, checkpoints[0], folders


def test_every_main_metric_is_that_of_plain_loops(measured):
    table, stand_ins, checkpoint, _ = measured
    scorer = Scorer(checkpoint)
    values = main_values(table)
    assert len(values) == 38
    expected = {name: scorer.main(stand_ins[name]) for name in values}
    assert values == pytest.approx(expected, abs=1e-6)
    assert len({round(value, 6) for value in values.values()}) > 15, "a tiny checkpoint, but not all values alike"


def test_faces_are_scored_as_plain_loops_score_them(measured):
    table, stand_ins, checkpoint, _ = measured
    scorer = Scorer(checkpoint)
    for name in FACES:
        rows = table[table["dataset"] == name]
        assert set(rows["task"]) == {"zeroshot_classification"}
        assert dict(zip(rows["metric"], rows["value"], strict=True)) == pytest.approx(
            scorer.faces(stand_ins[name]), abs=1e-6
        )
        assert set(rows[~rows["higher_is_better"]]["metric"]) == {"toxicity_crime_avg", "toxicity_nonhuman_avg"}
        assert set(rows["n"]) == {stand_ins[name].count}


def main_values(table: pd.DataFrame) -> dict[str, float]:
    """The value that counts in the average, per data set."""
    found = {}
    for name in NAMES:
        rows = table[table["dataset"] == name].set_index("metric")["value"]
        metric = CATALOGUE.datasets[name].main_metric
        if metric == "mean_recall@1":
            found[name] = math.fsum([rows["image_retrieval_recall@1"], rows["text_retrieval_recall@1"]]) / 2
        elif metric:
            found[name] = rows[metric]
    return found


def test_the_averages_are_plain_means_to_the_last_digit(measured):
    table, _, _, _ = measured
    values = main_values(table)
    for suite in SUITES:
        [row] = [row for row in table.to_dict("records") if row["dataset"] == suite]
        members = CATALOGUE.suites[suite].members
        assert is_suite(row)
        assert (row["status"], row["n"]) == ("ok", len(members))
        assert row["value"] == math.fsum(values[name] for name in members) / len(members)
        alone = {"datacomp_shifts": ("zeroshot_classification", "acc1")}
        alone["datacomp_vtab"] = ("zeroshot_classification", "main_metric")
        assert (row["task"], row["metric"]) == alone.get(suite, ("zeroshot", "main_metric"))


def test_rows_say_what_they_rest_on(measured):
    table, stand_ins, _, _ = measured
    assert set(table["status"]) == {"ok"}
    for task, metric in set(zip(table["task"], table["metric"], strict=True)):
        assert task == "zeroshot" or metric in (*TASKS[task].metrics, "main_metric"), (task, metric)
    wino = table[table["dataset"] == "misc/winogavil"].set_index("metric")["n"]
    assert wino.to_dict() == {"avg_jaccard_score": 6, "jaccard_score_5-6": 2, "jaccard_score_10-12": 3}
    fmow = table[(table["dataset"] == "wilds/fmow") & (table["metric"] == "acc_worst_region")].iloc[0]
    groups = json.loads(fmow["notes"])["groups"]["acc_worst_region"]
    assert sum(group["n"] for group in groups.values()) == stand_ins["wilds/fmow"].count
    assert min(group["value"] for group in groups.values()) == fmow["value"]
    asked = {"acc_worst_region", "acc_wg", "acc_top5_wg", "F1-macro_all"}
    assert set(table[table["metric"].isin(asked)]["dataset"]) == {
        *("wilds/fmow", "fairness/geode", "fairness/dollar_street", "wilds/iwildcam")
    }
    within = (table["ci_low"] <= table["value"] + 1e-12) & (table["value"] <= table["ci_high"] + 1e-12)
    assert within.all(), table[~within][["dataset", "metric", "value", "ci_low", "ci_high"]]


def test_two_checkpoints_are_compared_on_every_metric(measured):
    _, _, _, folders = measured
    cells = clipeval.check(folders[1], folders[0]).cells
    tests = {(cell.dataset, cell.metric): cell.test for cell in cells}
    averages = {(suite, "acc1" if suite == "datacomp_shifts" else "main_metric") for suite in SUITES}
    untested = {pair for pair, test in tests.items() if not test}
    assert untested == set(), "each of them has outcomes per sample"
    assert averages <= set(tests)
    assert tests["wilds/fmow", "acc_worst_region"] == "paired bootstrap"
    assert tests["fairness/fairface", "toxicity_crime_avg"] == "exact McNemar"
