"""Files in the published formats, written here in small, become rows whose values and facts were worked out by hand."""

from __future__ import annotations

import csv
import json
import math
from fnmatch import fnmatchcase
from importlib import resources

import pandas as pd
import pytest

from clipeval import config
from clipeval.errors import UsageError
from clipeval.importers import checkpoints
from clipeval.importers.datasets import DATACOMP_COLUMNS
from clipeval.importers.import_files import import_files
from clipeval.models import zoo
from clipeval.results.schema import COLUMNS

L14_400M = "Model-L-14_Data-400M_Samples-34B_lr-1e-3_bs-86k.pt"
B32_80M = "Model-B-32_Data-80M_Samples-3B_lr-5e-4_bs-32k.pt"

ZEROSHOT = f"""\
arch,samples_seen,gmacs_total,gmacs,upstream_dataset,downstream_dataset,acc1,acc5,mean_per_class_recall,\
image_retrieval_recall@5,text_retrieval_recall@5,mean_average_precision,task,samples_seen_pretty,name
ViT-L-14,12800000000.0,1122944000000.0,87.73,CLIP-WIT,imagenet1k,0.7549,0.9423,0.7541,,,,zeroshot_classification,13B,openai
ViT-L-14,34215895056.0,3001760473262.8804,87.73,LAION-400M,mscoco_captions,,,,0.68,0.82,,zeroshot_retrieval,34B,{L14_400M}
ViT-B-32,2560013280.0,18944098272.0,7.4,LAION-80M,vtab,0.35,,0.36,,,,zeroshot_classification,3B,{B32_80M}
"""
ARCHS = "model,gmacs,image_gmacs,text_gmacs\nViT-L-14,87.73,81.08,6.66\nViT-B-32,7.4,4.41,2.98\n"
RUNS = f"name,arch,epochs,samples_per_epoch\n{L14_400M},ViT-L-14,84,413000000\n{B32_80M},ViT-B-32,32,80000415\n"
CURVES = "imagenet-zeroshot-val-top1,imagenet-zeroshot-val-top5,name,epoch\n"


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def only(frame, **wanted):
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def table(rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return (
        "\n".join([",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in rows)]) + "\n"
    )


# The paper's files


def test_zeroshot_results_of_the_paper(write):
    write("arch_info.csv", ARCHS), write("trained_models_info.csv", RUNS)
    imported = import_files([write("any-name.csv", ZEROSHOT)])
    frame = imported.frame
    assert imported.notes == ()
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 3 + 2 + 2
    openai = only(frame, source="CLIP-WIT", metric="acc1")
    assert openai["model"] == "ViT-L-14-quickgelu,openai"
    assert openai["model"] in [row.name for row in zoo.members("cherti2023")]
    assert (openai["value"], openai["n"], openai["gmacs_total"]) == (0.7549, 50000, 1122944000000.0)
    assert (openai["gmacs"], openai["gmacs_image"], openai["gmacs_text"]) == (87.73, 81.08, 6.66)
    assert openai["params"] == 427_616_513  # counted by open_clip; arch_info.csv has 427.62 million
    assert openai["epochs"] == 32
    assert pd.isna(openai["from_scratch_filter"])
    image = only(frame, metric="image_retrieval_recall@5")
    text = only(frame, metric="text_retrieval_recall@5")
    assert (image["value"], text["value"]) == (0.68, 0.82)
    assert (image["n"], text["n"]) == (25010, 5000)
    assert image["gmacs_total"] == 3001760473262.8804
    assert image["samples_seen"] == 34215895056
    assert image["samples_seen_tolerance"] == pytest.approx(84 * 413e6 / 34215895056 - 1, rel=1e-12)
    assert image["epochs"] == 84
    assert image["source_family"] == "LAION"
    assert image["study"] == "cherti2023"
    mean = only(frame, dataset="vtab", metric="acc1")
    assert mean["samples_seen_tolerance"] == 0
    assert pd.isna(mean["n"])
    assert frame["reference"].str.contains("arXiv:2212.07143.*any-name.csv").all()


def test_companions_are_given_or_beside_and_missed_aloud(write, tmp_path):
    notes = import_files([write("a.csv", ZEROSHOT)]).notes
    assert [note.split()[0] for note in notes] == ["arch_info.csv", "trained_models_info.csv"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "architectures.csv").write_text(ARCHS)
    given = import_files([tmp_path / "a.csv", elsewhere / "architectures.csv"])
    assert [note.split()[0] for note in given.notes] == ["trained_models_info.csv"]
    assert set(given.frame["gmacs_image"]) == {81.08, 4.41}


def test_same_weights_under_other_names(write):
    names = {
        "Model-H-14_Data-2B_Samples-34B_lr-5e-4_bs-79k.pt": ("ViT-H-14", "ViT-H-14,laion2b_s32b_b79k"),
        "Model-B-16_Data-400M_Samples-13B_lr-5e-4_bs-33k.pt": ("ViT-B-16", "ViT-B-16,laion400m_e32"),
        "Model-B-16_Data-400M_Samples-34B_lr-1e-3_bs-88k.pt": ("ViT-B-16", None),
    }
    head, line = ZEROSHOT.splitlines()[0], ZEROSHOT.splitlines()[3]
    lines = [line.replace(B32_80M, name).replace("ViT-B-32", arch) for name, (arch, _) in names.items()]
    frame = import_files([write("a.csv", "\n".join([head, *lines]))]).frame
    same = frame.drop_duplicates("model")["same_weights_as"]
    assert [None if pd.isna(name) else name for name in same] == [name for _, name in names.values()]
    assert all(name in {row.name for row in zoo.checkpoints().values()} for name in same.dropna())


def test_learning_curves_have_samples_seen_and_stay_out_of_fits(write):
    path = write("curves.csv", CURVES + f"0.25,,{B32_80M},8\n0.3,0.6,{B32_80M},32\n")
    with pytest.raises(
        UsageError, match=r"curves\.csv: line 2: trained_models_info\.csv does not say how long Model-B-32"
    ):
        import_files([path])
    write("arch_info.csv", ARCHS), write("trained_models_info.csv", RUNS)
    frame = import_files([path]).frame
    assert list(frame["metric"]) == ["acc1", "acc1", "acc5"]
    assert list(frame["samples_seen"]) == [8 * 80000415, 32 * 80000415, 32 * 80000415]
    assert frame["gmacs_total"][0] == pytest.approx(8 * 80000415 * 7.4, rel=1e-15)
    assert list(frame["stage"][:2]) == ["epoch 8 of 32", "epoch 32 of 32"]
    assert list(frame["from_scratch_filter"][:2]) == ["learning rate not yet 0", "same run as the final checkpoint"]


# CLIP_benchmark


def run(**more):
    return {
        "dataset": "wds/imagenet1k",
        "model": "ViT-B-32",
        "pretrained": "laion2b_e16",
        "task": "zeroshot_classification",
        "metrics": {"acc1": 0.6565, "acc5": 0.9, "mean_per_class_recall": 0.65},
        "language": "en",
        **more,
    }


def test_run_of_clip_benchmark(write):
    frame = import_files([write("r.json", run())]).frame
    row = only(frame, metric="acc1")
    assert (row["dataset"], row["value"], row["n"], row["source"]) == ("imagenet1k", 0.6565, 50000, "LAION-2B")
    assert row["gmacs_total"] == zoo.architectures()["ViT-B-32"].gmacs * 34725396128
    assert row["loss"] == "contrastive"
    assert row["higher_is_better"]


def test_linear_probe_of_clip_benchmark(write):
    metrics = {"lp_acc1": 0.5, "lp_acc5": math.nan, "lp_mean_per_class_recall": 0.4, "weight_decay": 0.1}
    metrics |= {"epochs": 10, "seed": 3, "fewshot_k": 16, "normalized": True}
    path = write("p.json", run(task="linear_probe", dataset="vtab/kitti_closest_vehicle_distance", metrics=metrics))
    frame = import_files([path]).frame
    assert list(frame["metric"]) == ["acc1", "mean_per_class_recall"]
    assert (frame["shots"][0], frame["seed"][0], frame["n"][0]) == (16, 3, 711)
    assert json.loads(frame["notes"][0]) == {"weight_decay": 0.1, "epochs": 10, "normalized": True}


def test_languages_and_own_checkpoints(write):
    metrics = {"image_retrieval_recall@5": 0.5, "text_retrieval_recall@5": 0.6}
    own = run(model="ViT-B-32", pretrained="logs/epoch_3.pt", dataset="crossmodal3600", metrics=metrics, language="ar")
    frame = import_files([write("a.json", own), write("b.json", run(language="it"))]).frame
    assert set(frame["dataset"]) == {"crossmodal3600/ar", "imagenet1k/it"}
    row = only(frame, metric="text_retrieval_recall@5")
    assert row["model"] == "ViT-B-32,logs/epoch_3.pt"
    assert row["params"] == 151_277_313
    assert math.isnan(row["samples_seen"])
    assert pd.isna(row["source"])
    assert pd.isna(row["loss"])


def test_build_csv_is_the_same_as_its_runs(write):
    runs = [
        run(),
        run(dataset="mscoco_captions", task="zeroshot_retrieval", metrics={"text_retrieval_recall@5": 0.7}),
    ]
    rows = [{**record["metrics"], **{k: v for k, v in record.items() if k != "metrics"}} for record in runs]
    built = import_files([write("built.csv", table(rows))]).frame
    single = import_files([write(f"{i}.json", record) for i, record in enumerate(runs)]).frame
    pd.testing.assert_frame_equal(built.drop(columns="reference"), single.drop(columns="reference"))


def test_activation_of_openai_weights_depends_on_the_age_of_the_file(write):
    """Files without a language are of the first CLIP_benchmark, when open_clip gave these weights their activation."""
    row = {"dataset": "mnist", "model": "ViT-B-16", "pretrained": "openai", "task": "zeroshot_classification"}
    old = import_files([write("old.csv", table([row | {"acc1": 0.5}]))]).frame.iloc[0]
    new = import_files([write("new.csv", table([row | {"acc1": 0.5, "language": "en"}]))]).frame.iloc[0]
    assert old["model"] == "ViT-B-16-quickgelu,openai"
    assert pd.isna(old["from_scratch_filter"])
    assert (new["model"], new["from_scratch_filter"]) == ("ViT-B-16,openai", "wrong activation")


# The paper's linear probes


def probe(
    model, pretrained, dataset, acc1, *, samples=13034626688, gmacs=7.4, k=-1, lr=0.1, source="LAION-400M", label="13B"
):
    return {
        "k": k,
        "lr": lr,
        "bs": 256,
        "epochs": 10,
        "model": model,
        "pretrained": pretrained,
        "dataset": dataset,
        "gmacs_total": gmacs * samples,
        "samples_seen": samples,
        "samples_seen_pretty": label,
        "upstream_dataset": source,
        "lp_acc1": acc1,
        "lp_acc5": None,
        "lp_mean_per_class_recall": acc1 - 0.01,
        "seed": 0,
        "fewshot_k": k,
    }


def test_linear_probes_keep_the_best_setting_and_say_so(write):
    grid = [
        probe("ViT-B-32", "laion400m_e32", "vtab_svhn", acc, lr=lr, k=10)
        for lr, acc in [(0.1, 0.3), (0.01, 0.5), (0.001, 0.4)]
    ]
    imported = import_files([write("p.json", grid)])
    assert imported.notes[0] == "3 linear probes: of each the setting best on the test set is kept, 1 in all"
    row = only(imported.frame, metric="acc1")
    assert (row["model"], row["dataset"], row["shots"]) == ("ViT-B-32-quickgelu,laion400m_e32", "vtab/svhn", 10)
    assert (row["value"], row["n"], row["protocol"]) == (0.5, 26032, "cherti2023")
    notes = {"selected_on": "test", "learning_rate": 0.01, "epochs": 10, "median_acc1_of_grid": 0.4}
    assert json.loads(row["notes"]) == notes
    assert only(imported.frame, metric="mean_per_class_recall")["value"] == 0.49
    assert row["gmacs_total"] == 7.4 * 13034626688


def test_slips_of_the_published_probe_fits_are_marked(write):
    n34 = 34725396128
    rows = [
        probe("ViT-B-16-plus-240", "laion400m_e32", "cifar100", 0.7, gmacs=28.41),
        probe("ViT-B-32", "laion2b_e16", "cifar100", 0.61, samples=n34, source="LAION-2B", label="34B"),
        probe("ViT-B-32", "laion2b_s34b_b79k", "cifar100", 0.62, samples=39337362620, source="LAION-2B", label="34B"),
    ]
    means = [
        {key: value for key, value in row.items() if key not in ("samples_seen", "lp_acc5", "lr", "epochs")}
        for row in rows
    ]
    means = [row | {"dataset": "vtab", "lp_mean_per_class_recall": None} for row in means]
    frame = import_files([write("p.json", rows), write("means.json", means)]).frame
    frame = frame[frame["metric"] == "acc1"].set_index(["dataset", "pretrained"])
    for dataset in ("cifar100", "vtab"):
        reasons = frame.loc[dataset]["from_scratch_filter"]
        assert reasons["laion400m_e32"] == "wrong GMACs: 28.41 per sample, not 32.014"
        assert reasons["laion2b_e16"] == "same recipe as ViT-B-32,laion2b_s34b_b79k, which is better here"
        assert pd.isna(reasons["laion2b_s34b_b79k"])
    assert frame.loc[("vtab", "laion2b_s34b_b79k"), "samples_seen"] == 39337362620
    tolerance = frame.loc[("vtab", "laion2b_s34b_b79k"), "samples_seen_tolerance"]
    assert tolerance == pytest.approx(1 - 34725395968 / 39337362620, rel=1e-12)
    assert frame.loc[("cifar100", "laion2b_e16"), "n"] == 10000
    assert pd.isna(frame.loc[("vtab", "laion2b_e16"), "n"])


# open_clip's tables


def datacomp(name, pretrained, start):
    values = {column: f"{(start + 7 * i) % 100 / 100:.4f}" for i, column in enumerate(DATACOMP_COLUMNS)}
    mean = sum(map(float, values.values())) / 38
    facts = {"name": name, "pretrained": pretrained, "params (M)": "151.28", "FLOPs (B)": "14.78"}
    return facts | {"Average perf. on 38 datasets": f"{mean:.4f}"} | values


def test_columns_are_the_38_data_sets_of_datacomp():
    assert len(DATACOMP_COLUMNS) == 38
    members = config.packaged().suites["datacomp"].members
    assert sorted(DATACOMP_COLUMNS.values()) == sorted(name.removeprefix("datacomp/") for name in members)


def test_openclip_results_and_their_hygiene(write):
    rows = [
        datacomp("ViT-B-32", "openai", 1),
        datacomp("ViT-B-32-quickgelu", "openai", 1),
        datacomp("ViT-B-16", "openai", 2),
        datacomp("ViT-B-32", "commonpool_s_image_s13m_b4k", 3),
        datacomp("ViT-B-32", "datacomp_s_s13m_b4k", 3),
        datacomp("ViT-B-32", "laion400m_e31", 4),
        datacomp("ViT-B-16", "datacomp_l_s1b_b8k", 5),
        datacomp("ViT-B-32-256", "datacomp_s34b_b86k", 6),
        datacomp("EVA02-L-14-336", "merged2b_s6b_b61k", 7),
        datacomp("convnext_large_d_320", "laion2b_s29b_b131k_ft_soup", 8),
        datacomp("ViT-H-14-CLIPA", "datacomp1b", 9),
        datacomp("Some-New-Arch", "some_tag", 10),
    ]
    imported = import_files([write("o.csv", table(rows))])
    frame = imported.frame
    assert len(frame) == 12 * 39
    first = frame.drop_duplicates("model").set_index("model")
    reasons = {model: None if pd.isna(reason) else reason for model, reason in first["from_scratch_filter"].items()}
    assert reasons == {
        "ViT-B-32,openai": "duplicate of ViT-B-32-quickgelu,openai",
        "ViT-B-32-quickgelu,openai": None,
        "ViT-B-16-quickgelu,openai": None,
        "ViT-B-32,commonpool_s_image_s13m_b4k": "duplicate of ViT-B-32,datacomp_s_s13m_b4k",
        "ViT-B-32,datacomp_s_s13m_b4k": None,
        "ViT-B-32,laion400m_e31": "wrong activation; same run as ViT-B-32,laion400m_e32",
        "ViT-B-16,datacomp_l_s1b_b8k": None,
        "ViT-B-32-256,datacomp_s34b_b86k": None,
        "EVA02-L-14-336,merged2b_s6b_b61k": "high-resolution stage; pre-initialised tower",
        "convnext_large_d_320,laion2b_s29b_b131k_ft_soup": "fine-tuned",
        "ViT-H-14-CLIPA,datacomp1b": "CLIPA stages",
        "Some-New-Arch,some_tag": None,
    }
    notes = "\n".join(imported.notes)
    assert "ViT-B-32,commonpool_s_image_s13m_b4k is identical to ViT-B-32,datacomp_s_s13m_b4k in all 39 values" in notes
    assert "from-scratch fits leave out, wrong activation: 1 (ViT-B-32,laion400m_e31)" in notes
    assert "samples seen are not known: 1 (Some-New-Arch,some_tag)" in notes
    assert first.loc["ViT-B-16,datacomp_l_s1b_b8k", "samples_seen"] == 1.28e9
    rounded = first.loc["ViT-B-32-256,datacomp_s34b_b86k"]
    assert (rounded["samples_seen_from"], rounded["samples_seen_tolerance"]) == ("tag", 1 / 34)
    new = first.loc["Some-New-Arch,some_tag"]
    assert (new["params"], new["gmacs"]) == (151.28e6, 7.39)
    flowers = only(frame, model="ViT-B-16,datacomp_l_s1b_b8k", dataset="vtab/flowers")
    assert flowers["metric"] == "mean_per_class_recall"
    assert flowers["value"] == float(rows[6]["Oxford Flowers-102"])
    mean = only(frame, model="ViT-B-16,datacomp_l_s1b_b8k", dataset="datacomp")
    assert (mean["metric"], mean["task"]) == ("main_metric", "zeroshot")
    assert pd.isna(mean["n"])


def test_retrieval_tables_of_openclip(write):
    retrieval = {"name": "ViT-B-16", "pretrained": "dfn2b", "Average score": 0.5}
    retrieval |= {
        f"{data} {way} retr. R@{k}": k / 20
        for data in ("Flickr", "MSCOCO")
        for way in ("image", "text")
        for k in (1, 5, 10)
    }
    retrieval |= {"WinoGAViL avg jaccard score": 0.4, "WinoGAViL jaccard score 10-12": 0.3}
    languages = {"model": "nllb-clip-base", "version": "v1", "avg": 0.2}
    languages |= {
        "crossmodal3600 image_retrieval_recall@1 avg": 0.3,
        "crossmodal3600 image_retrieval_recall@1 quz": 0.1,
    }
    imported = import_files([write("r.csv", table([retrieval])), write("m.csv", table([languages]))])
    frame = imported.frame
    assert len(frame) == 14 + 2
    assert only(frame, dataset="mscoco_captions", metric="image_retrieval_recall@10")["value"] == 0.5
    assert only(frame, dataset="flickr30k", metric="text_retrieval_recall@5")["n"] == 1000
    assert only(frame, metric="jaccard_score_avg")["dataset"] == "misc/winogavil"
    assert set(frame[frame["metric"].str.startswith("jaccard")]["metric"]) == {
        "jaccard_score_avg",
        "jaccard_score_10-12",
    }
    assert set(frame["model"]) == {"ViT-B-16-quickgelu,dfn2b", "nllb-clip-base,v1"}
    assert only(frame, dataset="crossmodal3600/quz")["value"] == 0.1
    assert only(frame, dataset="crossmodal3600")["value"] == 0.3
    assert any("'Average score' is not imported: a mean of other columns" in note for note in imported.notes)


def test_a_value_given_twice_is_kept_once_and_two_values_are_both_kept(write):
    a, b = datacomp("ViT-L-14", "laion2b_s32b_b82k", 1), datacomp("ViT-L-14", "laion2b_s32b_b82k", 1)
    b["MNIST"] = "0.9999"
    imported = import_files([write("a.csv", table([a])), write("b.csv", table([b]))])
    assert len(imported.frame) == 39 + 1
    assert imported.notes[0] == "38 values are given twice: kept once"
    assert imported.notes[1].endswith("both kept: 1 (ViT-L-14,laion2b_s32b_b82k mnist acc1)")


# What is known of checkpoints


def test_every_rule_of_training_csv_matches_a_checkpoint_and_every_checkpoint_a_rule():
    text = (resources.files("clipeval.importers") / "training.csv").read_text("utf-8")
    names = [(row.arch.removesuffix("-quickgelu"), row.pretrained) for row in zoo.checkpoints().values()]
    for rule in csv.DictReader(text.splitlines()):
        assert any(fnmatchcase(arch, rule["arch"]) and fnmatchcase(tag, rule["pretrained"]) for arch, tag in names), (
            rule
        )
    for row in zoo.checkpoints().values():
        known = checkpoints.describe(row.arch, row.pretrained)
        assert known["init"]
        assert known["loss"] or row.arch.startswith("nllb-")


@pytest.mark.parametrize(
    ("name", "loss", "reason"),
    [
        ("ViT-B-16-SigLIP-256,webli", "sigmoid", ""),
        ("ViT-B-16-SigLIP-384,webli", "sigmoid", "high-resolution stage"),
        ("ViT-B-16-SigLIP2-256,webli", "sigmoid + captioning + self-distillation", ""),
        ("coca_ViT-B-32,laion2b_s13b_b90k", "contrastive + captioning", ""),
        ("coca_ViT-B-32,mscoco_finetuned_laion2b_s13b_b90k", "contrastive + captioning", "fine-tuned"),
        ("ViT-H-14-378-quickgelu,dfn5b", "contrastive", "high-resolution stage"),
        ("ViT-H-14-quickgelu,dfn5b", "contrastive", ""),
        ("convnext_xxlarge,laion2b_s34b_b82k_augreg_rewind", "contrastive", "fine-tuned"),
        ("convnext_base_w_320,laion_aesthetic_s13b_b82k", "contrastive", ""),
        ("ViT-L-14-336-quickgelu,openai", "contrastive", "high-resolution stage"),
        ("RN50,yfcc15m", "contrastive", "wrong activation"),
    ],
)
def test_how_public_checkpoints_were_trained(name, loss, reason):
    known = checkpoints.describe(*name.split(",", 1))
    assert (known["loss"], known["from_scratch_filter"]) == (loss, reason)


# Tidy tables


def test_tidy_tables_stay_as_they_are(write, tmp_path):
    small = "model,source,gmacs,samples_seen,dataset,task,metric,value,mine\nm,s,7.4,1e9,d,t,acc1,0.5,x\n"
    frame = import_files([write("small.csv", small)]).frame
    row = frame.iloc[0]
    assert (row["value"], row["gmacs"], row["samples_seen"], row["mine"]) == (0.5, 7.4, 1e9, "x")
    frame.to_parquet(tmp_path / "t.parquet")
    both = import_files([tmp_path / "t.parquet", write("r.json", run())]).frame
    assert len(both) == 1 + 3
    assert both["mine"].notna().sum() == 1


def test_a_failed_row_of_a_tidy_table_has_no_value(write):
    failed = "model,dataset,task,metric,value,status\nm,d,t,acc1,,failed\nm,e,t,acc1,0.5,ok\n"
    assert list(import_files([write("t.csv", failed)]).frame["status"]) == ["failed", "ok"]


# Wrong input

TIDY_HEAD = "model,dataset,task,metric,value,gmacs,shots\n"
JSON_RUN = json.dumps(run())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "u.csv",
            "a,b\n1,2\n",
            r"u\.csv: not a result file that clipeval knows \(its columns: a, b\)\. Known are: zeroshot_res",
        ),
        ("u.json", "[1, 2]", r"u\.json: record 0: expected an object, found int"),
        ("u.json", "{", r"u\.json: not a valid JSON file"),
        ("u.csv", " \n", r"u\.csv: the file is empty"),
        ("arch_info.csv", ARCHS, r"arch_info\.csv: there are no results in this"),
        (
            "z.csv",
            ZEROSHOT.replace("0.7549", "75.49"),
            r"z\.csv: line 2: column 'acc1': acc1 = 75\.49 is outside \[0, 1\]",
        ),
        ("z.csv", ZEROSHOT.replace("0.7549", "high"), r"z\.csv: line 2: column 'acc1': 'high' is not a number"),
        ("z.csv", ZEROSHOT.replace("0.68,0.82", ","), r"z\.csv: line 3: no metric has a value; looked for acc1,"),
        (
            "z.csv",
            ZEROSHOT.replace("7.4,LAION", "-7.4,LAION"),
            r"z\.csv: line 4: column 'gmacs': expected a number above 0",
        ),
        ("z.csv", ZEROSHOT.replace(",34B,", ",34B,,"), r"z\.csv: line 3: it has not the 15 columns of the header"),
        ("z.csv", ZEROSHOT.replace("CLIP-WIT", ""), r"z\.csv: line 2: column 'upstream_dataset' is empty"),
        ("r.json", JSON_RUN.replace("0.6565", "NaN"), r"r\.json: record 0: column 'acc1': the value is NaN"),
        ("r.json", JSON_RUN.replace("0.6565", "true"), r"r\.json: record 0: column 'acc1': True is not a number"),
        ("r.json", json.dumps(run(metrics=3)), r"r\.json: record 0: 'metrics' should be an object"),
        (
            "p.json",
            [probe("ViT-B-32", "openai", "d", 0.5) | {"fewshot_k": 1.5}],
            r"p\.json: record 0: column 'fewshot_k': expected a whole",
        ),
        ("t.csv", TIDY_HEAD + "m,d,t,acc1,,1,\n", r"t\.csv: line 2: no metric has a value"),
        ("t.csv", TIDY_HEAD + "m,d,t,acc1,0.5,many,\n", r"t\.csv: line 2: column 'gmacs': 'many' is not a number"),
        (
            "t.csv",
            TIDY_HEAD + "m,d,t,acc1,1.5,1,\n",
            r"t\.csv: line 2: column 'value': acc1 = 1\.5 is outside \[0, 1\]",
        ),
        ("t.csv", TIDY_HEAD + "m,,t,acc1,0.5,1,\n", r"t\.csv: line 2: column 'dataset' is empty"),
        ("t.csv", TIDY_HEAD + "m,d,t,acc1,0.5,1,2.5\n", r"t\.csv: line 2: column 'shots': expected a whole number"),
        (
            "t.csv",
            "model,dataset,task,metric,value,higher_is_better\nm,d,t,acc1,0.5,perhaps\n",
            r"t\.csv: not a readable",
        ),
    ],
)
def test_wrong_files_are_named_with_line_and_column(write, name, content, message):
    with pytest.raises(UsageError, match=message):
        import_files([write(name, content)])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"missing\.csv: cannot read it: No such file"):
        import_files([tmp_path / "missing.csv"])
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UsageError, match=r"image\.csv: cannot read it: it is neither a table nor UTF-8 text"):
        import_files([tmp_path / "image.csv"])


def test_numbers_beyond_floats_are_named(tmp_path):
    (tmp_path / "tidy.json").write_text(
        '[{"model": "m", "dataset": "d", "task": "t", "metric": "acc1", "value": 1' + "0" * 400 + "}]"
    )
    with pytest.raises(UsageError, match=r"record 0: column 'value': 1000.* is not a number"):
        import_files([tmp_path / "tidy.json"])


def test_the_index_of_pandas_is_no_metric(tmp_path):
    record = {"dataset": "imagenet1k", "model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k", "language": "en"}
    frame = pd.DataFrame([record | {"task": "zeroshot_classification", "acc1": 0.66}] * 2)
    frame.to_csv(tmp_path / "benchmark.csv")
    found = import_files([tmp_path / "benchmark.csv"])
    assert found.frame[["metric", "value"]].values.tolist() == [["acc1", 0.66]]
    assert found.notes[0] == f"{tmp_path / 'benchmark.csv'}: without a name and left out: column 1"
    frame.assign(acc1=[0.66, 0.7], lp_acc1=0.5).to_csv(tmp_path / "benchmark.csv", index_label="index")
    found = import_files([tmp_path / "benchmark.csv"])
    assert sorted(found.frame[["metric", "value"]].values.tolist()) == [
        ["acc1", 0.5],
        ["acc1", 0.66],
        ["acc1", 0.7],
    ]
    assert found.notes[0] == f"{tmp_path / 'benchmark.csv'}: no metrics by their names and left out: 'index'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dataset;model;pretrained;task;acc1\n", "it is separated by semicolons"),
        ("dataset,model,pretrained,task,acc1,acc1\n", "it has two columns 'acc1'"),
        ('[{"dataset": "a", "dataset": "b"}]', "the key 'dataset' is there twice"),
        ("dataset,model\n".encode("utf-16"), "it is UTF-16 text"),
    ],
)
def test_files_that_are_told_by_their_form(tmp_path, text, expected):
    (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=expected):
        import_files([tmp_path / "a.csv"])
