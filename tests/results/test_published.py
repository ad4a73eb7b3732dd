"""The shipped tables hold what was published: counts, golden values and coefficients that were recomputed elsewhere."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from clipeval import config, read_results
from clipeval.importers import build_published
from clipeval.results import published as shipped
from clipeval.results.schema import COLUMNS

TABLES = {
    "cherti2023_finetune": 8,
    "cherti2023_learning_curves": 3359,
    "cherti2023_linear_probe": 1524,
    "cherti2023_zeroshot": 3712,
    "clip_benchmark_zeroshot": 1417,
    "open_clip_multilingual": 1476,
    "open_clip_zeroshot": 6897,
}


@pytest.fixture(scope="module")
def published():
    return shipped.published()


@pytest.fixture(scope="module")
def paper(published):
    """The 32 checkpoints of Cherti et al., zero-shot."""
    return published[(published["study"] == "cherti2023") & published["reference"].str.endswith("zeroshot_results.csv")]


@pytest.fixture(scope="module")
def open_clip(published):
    return published[published["study"] == "open_clip"]


def usable(frame):
    return frame[frame["from_scratch_filter"].isna()]


def values(frame, dataset, metric="acc1"):
    """By model."""
    frame = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)]
    return frame.set_index("model")["value"].sort_index()


# Form


def test_tables_and_rows(published):
    files = {path.stem: len(pd.read_parquet(path)) for path in shipped.folder().glob("*.parquet")}
    assert files == TABLES
    assert len(published) == sum(TABLES.values())
    assert list(published.columns) == list(COLUMNS)
    assert {name: str(kind) for name, kind in published.dtypes.items()} == COLUMNS


@pytest.mark.parametrize("name", TABLES)
def test_csv_holds_the_same_rows(name):
    parquet, text = (read_results(shipped.folder() / f"{name}{suffix}") for suffix in (".parquet", ".csv"))
    pd.testing.assert_frame_equal(parquet, text, check_exact=True)


def test_tables_are_small():
    assert sum(path.stat().st_size for path in shipped.folder().glob("*.parquet")) < 1e6
    assert sum(path.stat().st_size for path in shipped.folder().iterdir()) < 10e6


def test_every_row_is_cited_and_has_a_value_and_a_known_place(published):
    assert published["reference"].str.contains(r"arXiv:\d{4}\.\d{5}|@[0-9a-f]{7} ").all()
    assert published["value"].between(0, 1).all()
    for column in ("model", "arch", "pretrained", "source", "source_family", "dataset", "task", "metric", "study"):
        assert published[column].notna().all(), column
    assert set(published["task"]) == {
        "zeroshot",
        "zeroshot_classification",
        "zeroshot_retrieval",
        "linear_probe",
        "finetune",
        "association",
    }
    assert set(published["samples_seen_from"].dropna()) == {"paper", "tag", "card", "epochs"}
    known = {*config.packaged().datasets, *config.packaged().suites}
    assert set(published["dataset"]) <= known


def test_no_measurement_is_there_twice(published):
    key = ["study", "model", "dataset", "task", "metric", "shots", "seed", "protocol", "stage"]
    assert not published.duplicated(key).any()


def test_tables_are_built_from_a_folder_of_raw_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "raw" / "clip_benchmark").mkdir(parents=True)
    run = {"dataset": "mnist", "model": "ViT-B-32", "pretrained": "laion2b_e16", "task": "zeroshot_classification"}
    text = ",".join([*run, "acc1"]) + "\n" + ",".join([*run.values(), "0.5"]) + "\n"
    (tmp_path / "raw" / "clip_benchmark" / "benchmark.csv").write_text(text)
    scaling = tmp_path / "raw" / "scaling"
    scaling.mkdir()
    (scaling / "gadre2024_c4val.csv").write_text("model,source,arch,params,samples_seen,value\nm,rpj,d96,1e7,5e7,0.7\n")
    (scaling / "datablations_60.csv").write_text("model,source,params,unique_samples,value\nm0,C4,7e6,1e8,0.6734976\n")
    (scaling / "curves_alabdulmohsin2022_vision.csv").write_text(
        "Domain,Task,Model,Seen Examples,Loss,Training\nIC,inet_10,ViT/B/16,4096000.0,0.75,1\n"
    )
    tables = [table for table in build_published._TABLES if table.name == "clip_benchmark_zeroshot"]
    monkeypatch.setattr(build_published, "_TABLES", tables)
    monkeypatch.setattr("sys.argv", ["build_published", str(tmp_path / "raw"), "-o", str(tmp_path / "out")])
    build_published.main()
    assert capsys.readouterr().out == "clip_benchmark_zeroshot: 1 rows\n"
    built = read_results(tmp_path / "out" / "clip_benchmark_zeroshot.csv")
    assert (built["study"][0], built["value"][0]) == ("clip_benchmark", 0.5)
    assert built["reference"][0] == "LAION-AI/CLIP_benchmark@48de38c benchmark/benchmark.csv"
    [run] = pd.read_parquet(tmp_path / "out/scaling/muennighoff2023.parquet").to_dict("records")
    assert (run["metric"], run["value"], run["higher_is_better"]) == ("loss", 3.265024, False)
    [curve] = pd.read_parquet(tmp_path / "out/scaling/alabdulmohsin2022.parquet").to_dict("records")
    assert (curve["dataset"], curve["shots"], curve["metric"], curve["value"]) == ("imagenet1k", 10, "acc1", 0.25)
    fine_tuned = pd.read_parquet(tmp_path / "out" / "cherti2023_finetune.parquet")
    pd.testing.assert_frame_equal(fine_tuned, read_results(shipped.folder() / "cherti2023_finetune.parquet"))


# The paper


def test_checkpoints_of_the_paper(paper):
    models = paper.drop_duplicates("model")
    assert dict(models["source"].value_counts()) == {"LAION-2B": 11, "LAION-400M": 9, "LAION-80M": 9, "CLIP-WIT": 3}
    assert dict(models["source_family"].value_counts()) == {"LAION": 29, "CLIP-WIT": 3}
    assert paper["dataset"].nunique() == 41
    assert usable(paper).equals(paper)
    assert (
        models[["params", "params_image", "gmacs_text", "unique_samples", "epochs", "image_size"]].notna().all().all()
    )
    assert np.allclose(models["gmacs"] * models["samples_seen"], models["gmacs_total"], rtol=1e-12)
    assert np.allclose(models["gmacs_image"] + models["gmacs_text"], models["gmacs"], atol=0.011)
    h14 = models[models["arch"] == "ViT-H-14"].iloc[0]
    assert (h14["samples_seen"], h14["gmacs"], h14["gmacs_total"]) == (34725395968, 190.97, 6631508868008.96)
    off = models[models["samples_seen_tolerance"] > 0]
    assert list(off["pretrained"].str.extract("(Model-[^/]*)_lr")[0]) == ["Model-L-14_Data-400M_Samples-34B"]
    assert off["samples_seen_tolerance"].iloc[0] == pytest.approx(84 * 413e6 / 34215895056 - 1, rel=1e-12)


@pytest.mark.parametrize("suite", ["vtab", "vtab+", "imagenet_robustness"])
def test_published_means_are_those_of_the_suites(paper, suite):
    members = [values(paper, name) for name in config.packaged().suites[suite].members]
    pd.testing.assert_series_equal(sum(members) / len(members), values(paper, suite), rtol=0, atol=1e-12)


def test_text_retrieval_is_not_image_retrieval(paper):
    """The published notebook plots image recall for both."""
    image, text = (values(paper, "flickr30k", f"{way}_retrieval_recall@5") for way in ("image", "text"))
    assert (text > image).all()


def paper_bins(compute, error):
    """The paper's frontier: the least error in each of five bins of log compute, at the bin's centre."""
    x, y = np.log10(compute), np.log10(error)
    edges = np.histogram(x, range=(x.min(), x.max() + 0.1), bins=5)[1]
    inside = [y[(x >= low) & (x < high)] for low, high in pairwise(edges)]
    return (edges[:-1] + edges[1:]) / 2, np.array([members.min() for members in inside])


@pytest.mark.parametrize(
    ("dataset", "metric", "laion", "wit"),
    [
        ("imagenet1k", "acc1", (-0.111388, 5.85806), (-0.163775, 23.1836)),
        ("imagenet_robustness", "acc1", (-0.125541, 11.6087), (-0.237843, 211.660)),
        ("mscoco_captions", "image_retrieval_recall@5", (-0.0794344, 2.74972), (-0.0507594, 1.58860)),
        ("flickr30k", "image_retrieval_recall@5", (-0.189157, 15.5060), (-0.102849, 2.20839)),
        ("mscoco_captions", "text_retrieval_recall@5", (-0.102303, 2.84995), (-0.0766997, 1.74682)),
        ("flickr30k", "text_retrieval_recall@5", (-0.382099, 569.850), (-0.2705, 46.7276)),
    ],
)
def test_coefficients_of_the_paper_follow_from_the_table(paper, dataset, metric, laion, wit):
    rows = paper[(paper["dataset"] == dataset) & (paper["metric"] == metric)]
    for family, (alpha, beta) in {"LAION": laion, "CLIP-WIT": wit}.items():
        points = rows[rows["source_family"] == family]
        compute, error = points["gmacs_total"].to_numpy(), 1 - points["value"].to_numpy()
        x, y = paper_bins(compute, error) if family == "LAION" else (np.log10(compute), np.log10(error))
        slope, intercept = np.polyfit(x, y, 1)
        assert slope == pytest.approx(alpha, abs=1e-6)
        assert 10**intercept == pytest.approx(beta, rel=1e-5)


def test_learning_curves_end_where_the_final_evaluation_begins(published, paper):
    curves = published[published["stage"].str.startswith("epoch ", na=False)]
    assert curves["model"].nunique() == 29
    assert usable(curves).empty
    last = curves[curves["from_scratch_filter"].str.startswith("same run")].set_index("model")
    assert len(last) == 29
    final = paper[(paper["dataset"] == "imagenet1k") & (paper["metric"] == "acc1")].set_index("model").loc[last.index]
    assert (last["value"] - final["value"]).abs().max() < 0.0013
    assert np.allclose(last["gmacs_total"], final["gmacs_total"], rtol=1e-12)


# The paper's probes and fine-tuning


def probes(published, dataset, shots):
    rows = published[(published["task"] == "linear_probe") & (published["dataset"] == dataset)]
    rows = rows[rows["metric"] == "acc1"]
    return rows[rows["shots"].isna() if shots is None else rows["shots"].eq(shots)]


def test_linear_probes(published):
    rows = published[(published["task"] == "linear_probe") & (published["metric"] == "acc1")]
    assert len(rows) == 528 + 12
    assert rows["model"].nunique() == 12
    assert dict(rows["shots"].value_counts()) == {10: 21 * 12, 25: 2 * 12}
    assert all(json.loads(notes)["selected_on"] == "test" for notes in rows["notes"])
    b32 = probes(published, "imagenet1k", 10).set_index("model").loc["ViT-B-32-quickgelu,laion400m_e32"]
    assert b32["value"] == 0.59356
    full = probes(published, "imagenet1k", None).set_index("model")["value"]
    assert full["ViT-H-14,laion2b_s32b_b79k"] == pytest.approx(0.8485, abs=5e-5)
    optimism = [json.loads(n)["median_acc1_of_grid"] for n in probes(published, "imagenet1k", None)["notes"]]
    assert (probes(published, "imagenet1k", None)["value"] - optimism).min() > 0


@pytest.mark.parametrize(
    ("dataset", "shots", "laion", "wit", "corrected"),
    [
        ("imagenet1k", 10, (-0.131461, 11.4172), (-0.175664, 34.7841), (-0.132464, 11.7649)),
        ("imagenet1k", 25, (-0.126186, 8.45338), (-0.178771, 31.8818), (-0.128122, 8.9569)),
        ("imagenet1k", None, (-0.120200, 5.17738), (-0.180100, 23.0773), (-0.123083, 5.6432)),
        ("cifar100", None, (-0.176906, 15.7064), (-0.181684, 20.1828), (-0.174529, 14.6292)),
        ("vtab", None, (-0.0378912, 0.744717), (-0.0584463, 1.33043), (-0.038945, 0.7685)),
    ],
)
def test_probe_coefficients_of_the_paper_follow_from_the_table(published, dataset, shots, laion, wit, corrected):
    rows = probes(published, dataset, shots)
    as_published = rows["from_scratch_filter"].isna() | rows["from_scratch_filter"].str.startswith("wrong GMACs")
    cases = [
        (rows[as_published], "LAION", 8, laion),
        (rows[as_published], "CLIP-WIT", 3, wit),
        (usable(rows), "LAION", 7, corrected),
    ]
    for points, family, n, (alpha, beta) in cases:
        points = points[points["source_family"] == family]
        assert len(points) == n
        slope, intercept = np.polyfit(np.log10(points["gmacs_total"]), np.log10(1 - points["value"]), 1)
        assert slope == pytest.approx(alpha, abs=1e-6)
        assert 10**intercept == pytest.approx(beta, rel=1e-4)


def test_fine_tuning(published):
    rows = published[published["task"] == "finetune"]
    assert list(usable(rows)["value"]) == [0.8258, 0.8653, 0.8778, 0.8759]
    assert list(rows["value"][rows["protocol"] != "imagenet1k"]) == [0.8511, 0.8717, 0.8817, 0.8850]
    assert rows["reference"].str.contains("author slides").all()
    assert rows["gmacs_total"].notna().all()


# open_clip


def test_from_scratch_checkpoints_of_open_clip(open_clip):
    models = open_clip[open_clip["reference"].str.contains("/openclip_re")].drop_duplicates("model")
    assert len(models) == 121
    kept = usable(models)
    family = kept["source_family"].where(~kept["source_family"].str.startswith("CommonPool"), "CommonPool")
    assert dict(family.value_counts()) == {
        "CommonPool": 20,
        "LAION": 19,
        "CLIP-WIT": 8,
        "DataComp": 7,
        "MetaCLIP": 7,
        "WebLI": 5,
        "LAION-Aesthetic": 3,
        "DFN": 3,
        "YFCC-15M": 2,
        "CC12M": 1,
    }
    assert len(kept) == 75
    reasons = models["from_scratch_filter"].dropna()
    assert dict(reasons.str.extract("(duplicate|wrong activation)")[0].value_counts()) == {
        "wrong activation": 5,
        "duplicate": 4,
    }
    assert not models["model"].duplicated().any()


def test_samples_seen_of_rounded_tags(open_clip):
    models = open_clip.drop_duplicates("model").set_index("model")
    assert models.loc["ViT-B-16,datacomp_l_s1b_b8k", "samples_seen"] == 1.28e9
    assert models.loc["ViT-B-32,commonpool_s_s13m_b4k", "samples_seen"] == 12.8e6
    assert models.loc["ViT-H-14,laion2b_s32b_b79k", "samples_seen"] == 34725395968
    assert models.loc["ViT-g-14,laion2b_s12b_b42k", "samples_seen"] == 12208147020
    assert np.isnan(models.loc["ViT-L-16-SigLIP-256,webli", "samples_seen"])
    tags = models[models["samples_seen_from"] == "tag"]
    assert tags["samples_seen_tolerance"].between(0.02, 0.25).all()
    assert models.loc["ViT-bigG-14,laion2b_s39b_b160k", "samples_seen_tolerance"] == 1 / 39


def test_later_models_that_score_the_forecast_of_the_paper(open_clip):
    imagenet, coco = values(open_clip, "imagenet1k"), values(open_clip, "mscoco_captions", "image_retrieval_recall@5")
    for model, expected in {
        "ViT-g-14,laion2b_s34b_b88k": (0.7847, 0.7334),
        "ViT-bigG-14,laion2b_s39b_b160k": (0.8009, 0.7490),
    }.items():
        assert (imagenet[model], coco[model]) == expected


def test_mean_of_datacomp_is_that_of_its_members(open_clip):
    rows = open_clip[open_clip["reference"].str.endswith("openclip_results.csv")]
    members = rows[rows["dataset"] != "datacomp"].groupby("model")["value"]
    assert (members.count() == 38).all()
    pd.testing.assert_series_equal(
        members.mean(), values(rows, "datacomp", "main_metric"), rtol=0, atol=1e-4, check_names=False
    )


def test_the_same_weights_score_the_same_in_two_studies(paper, open_clip):
    same = paper.dropna(subset="same_weights_as").drop_duplicates("model")
    assert len(same) == 5
    ours, theirs = values(paper, "imagenet1k"), values(open_clip, "imagenet1k")
    difference = [ours[row.model] - theirs[row.same_weights_as] for row in same.itertuples()]
    assert np.abs(difference).max() < 0.001
