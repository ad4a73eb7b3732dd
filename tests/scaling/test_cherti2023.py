"""The paper's figures, to the digits in which its notebooks print them or that were recomputed from its files."""

from __future__ import annotations

import numpy as np
import pytest

from clipeval.scaling.cherti2023 import mean_absolute_errors
from clipeval.scaling.fit import fit

LAWS = {
    ("imagenet1k", "LAION"): (-0.111388, 5.85806),
    ("imagenet_robustness", "LAION"): (-0.125541, 11.6087),
    ("mscoco_captions", "LAION"): (-0.0794344, 2.74972),
    ("flickr30k", "LAION"): (-0.189157, 15.5060),
    ("imagenet1k", "CLIP-WIT"): (-0.163775, 23.1836),
    ("imagenet_robustness", "CLIP-WIT"): (-0.237843, 211.660),
    ("mscoco_captions", "CLIP-WIT"): (-0.0507594, 1.58860),
    ("flickr30k", "CLIP-WIT"): (-0.102849, 2.20839),
}
PROBES = {
    ("imagenet1k", 10): ((-0.131461, 11.4172), (-0.175664, 34.7841), (-0.132464, 11.7649)),
    ("imagenet1k", 25): ((-0.126186, 8.45338), (-0.178771, 31.8818), (-0.128122, 8.9569)),
    ("imagenet1k", None): ((-0.120200, 5.17738), (-0.180100, 23.0773), (-0.123083, 5.6432)),
    ("cifar100", None): ((-0.176906, 15.7064), (-0.181684, 20.1828), (-0.174529, 14.6292)),
    ("vtab", None): ((-0.0378912, 0.744717), (-0.0584463, 1.33043), (-0.038945, 0.7685)),
}
"""LAION as published, CLIP-WIT, and LAION without the checkpoint whose compute is wrong."""


@pytest.fixture(scope="module")
def paper():
    return fit(preset="cherti2023", holdout=1e12)


def test_the_preset_alone_gives_the_eight_laws_of_the_paper(paper):
    found = {(row.dataset, row.source): (row.alpha, row.beta) for row in paper.fits.itertuples()}
    assert found.keys() == LAWS.keys()
    for key, (alpha, beta) in LAWS.items():
        assert found[key][0] == pytest.approx(alpha, abs=1e-6)
        assert found[key][1] == pytest.approx(beta, rel=1e-5)


def test_frontier_and_number_of_checkpoints(paper):
    laws = paper.fits.set_index(["dataset", "source"])
    assert set(laws.loc[(slice(None), "LAION"), ["n_models", "n_points", "frontier"]].itertuples(index=False)) == {
        (29, 5, "cherti2023")
    }
    assert set(laws.loc[(slice(None), "CLIP-WIT"), ["n_models", "n_points", "frontier"]].itertuples(index=False)) == {
        (3, 3, "none")
    }


def test_mean_absolute_errors_and_largest_extrapolations(paper):
    errors = mean_absolute_errors(paper.predictions)
    assert errors["imagenet1k", "acc1"] == pytest.approx((0.8743712188927533, 11), abs=1e-7)
    assert errors["mscoco_captions", "image_retrieval_recall@5"] == pytest.approx((0.5884335758552500, 11), abs=1e-7)
    assert errors["imagenet_robustness", "acc1"][0] == pytest.approx(1.5625, abs=1e-4)
    assert errors["flickr30k", "image_retrieval_recall@5"][0] == pytest.approx(0.5459, abs=1e-4)
    table = paper.forecasts.set_index(["dataset", "model"])["predicted"]
    assert 100 * table["imagenet1k", "ViT-G-14:68B"] == pytest.approx(81.923599, abs=1e-5)
    assert 100 * table["mscoco_captions", "ViT-G-14:68B"] == pytest.approx(76.985302, abs=1e-5)
    for model, imagenet, coco in (("ViT-H-14:68B", 79.734, 75.031), ("ViT-g-14:34B", 79.109, 74.483)):
        assert 100 * table["imagenet1k", model] == pytest.approx(imagenet, abs=6e-4)
        assert 100 * table["mscoco_captions", model] == pytest.approx(coco, abs=6e-4)


def test_later_checkpoints_score_the_forecast(paper):
    later = paper.forecasts.set_index(["dataset", "model"])["difference"] * 100
    g, big_g = "ViT-g-14,laion2b_s34b_b88k", "ViT-bigG-14,laion2b_s39b_b160k"
    assert later["imagenet1k", g] == pytest.approx(0.62, abs=0.01)
    assert later["imagenet1k", big_g] == pytest.approx(0.66, abs=0.01)
    assert later["mscoco_captions", g] == pytest.approx(1.13, abs=0.01)
    assert later["mscoco_captions", big_g] == pytest.approx(1.03, abs=0.01)


def test_held_out_largest_compute(paper):
    held = paper.fits.set_index(["dataset", "source"])["holdout_mae"]
    assert held["imagenet1k", "LAION"] == pytest.approx(0.28, abs=0.01)
    assert held["mscoco_captions", "LAION"] == pytest.approx(0.70, abs=0.01)
    assert held["imagenet_robustness", "LAION"] == pytest.approx(2.52, abs=0.01)
    assert held["flickr30k", "LAION"] == pytest.approx(0.09, abs=0.01)


def test_crossovers(paper):
    rows = paper.comparisons.set_index("dataset")
    imagenet = rows.loc["imagenet1k"]
    assert imagenet.crossover == pytest.approx(2.537e11, rel=1e-3)
    assert imagenet.crossover_low <= 10**9.5
    assert imagenet.crossover_high >= 10**13
    assert rows.loc["imagenet_robustness"].crossover == pytest.approx(1.69e11, rel=2e-3)
    for dataset in ("mscoco_captions", "flickr30k"):
        assert np.isnan(rows.loc[dataset].crossover)
        assert "crossover" in rows.loc[dataset].note


def test_text_retrieval_is_fitted_from_text_recall():
    laws = fit(task="retrieval", metric="text_retrieval_recall@5", preset="cherti2023", bootstrap=200).fits
    found = {(row.dataset, row.source): (row.alpha, row.beta) for row in laws.itertuples()}
    for key, (alpha, beta) in {
        ("mscoco_captions", "LAION"): (-0.102303, 2.84995),
        ("flickr30k", "LAION"): (-0.382099, 569.850),
        ("mscoco_captions", "CLIP-WIT"): (-0.0766997, 1.74682),
        ("flickr30k", "CLIP-WIT"): (-0.2705, 46.7276),
    }.items():
        assert found[key] == (pytest.approx(alpha, abs=1e-6), pytest.approx(beta, rel=1e-5))
        assert found[key][0] != pytest.approx(LAWS[key][0], abs=1e-3)


def test_linear_probes_as_published_and_corrected():
    published = _probes(fit(task="probe", preset="cherti2023", bootstrap=200).fits)
    corrected = _probes(fit(task="probe", bootstrap=200).fits)
    for cell, (laion, wit, laion_corrected) in PROBES.items():
        assert published[(*cell, "LAION")] == (pytest.approx(laion[0], abs=1e-5), pytest.approx(laion[1], rel=1e-5), 8)
        assert published[(*cell, "CLIP-WIT")] == (pytest.approx(wit[0], abs=1e-5), pytest.approx(wit[1], rel=1e-5), 3)
        alpha, beta = laion_corrected
        assert corrected[(*cell, "LAION")] == (pytest.approx(alpha, abs=1e-5), pytest.approx(beta, rel=1e-4), 7)
        assert corrected[(*cell, "CLIP-WIT")] == published[(*cell, "CLIP-WIT")]


def _probes(laws):
    return {
        (row.dataset, None if np.isnan(row.shots) else int(row.shots), row.source): (row.alpha, row.beta, row.n_models)
        for row in laws.itertuples()
    }


def test_tasks_that_do_not_scale_get_no_law_to_extrapolate():
    names = (
        "vtab/clevr_closest_object_distance",
        "vtab/diabetic_retinopathy",
        "vtab/kitti_closest_vehicle_distance",
        "vtab/pcam",
        "vtab/smallnorb_label_azimuth",
        "vtab/smallnorb_label_elevation",
        "vtab/dsprites_label_orientation",
        "vtab/dsprites_label_x_position",
        "vtab/dmlab",
    )
    for preset in (None, "cherti2023"):
        found = fit(datasets=names, preset=preset, forecasts=["ViT-G-14:34B"])
        laion = found.fits[found.fits["source"] == "LAION"]
        assert set(laion["dataset"]) == set(names)
        assert set(laion["verdict"]) == {"no-scaling"}
        assert found.comparisons["crossover"].isna().all()
        assert found.forecasts[found.forecasts["source"] == "LAION"]["predicted"].isna().all()
