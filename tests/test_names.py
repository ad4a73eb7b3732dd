"""Display names: short, unique within a table, and of a folder said once."""

from pathlib import Path

import pandas as pd
import pytest

from clipeval.names import display_names, samples

PUBLISHED = sorted((Path(__file__).parents[1] / "results" / "published").rglob("*.parquet"))


@pytest.mark.parametrize("table", PUBLISHED, ids=lambda path: path.stem)
def test_every_checkpoint_of_a_public_table_has_a_name_of_its_own(table):
    rows = pd.read_parquet(table).to_dict("records")
    names = display_names(rows)
    assert len(set(names.short.values())) == len({row["model"] for row in rows})


def test_public_checkpoints_are_architecture_source_and_samples():
    hub = "hf://laion/scaling-laws-openclip/Model-H-14_Data-2B_Samples-34B_lr-5e-4_bs-79k.pt"
    names = display_names(
        [
            {"model": f"ViT-H-14,{hub}", "arch": "ViT-H-14", "source": "LAION-2B", "samples_seen": 3.47254e10},
            {"model": "ViT-L-14-quickgelu,openai", "source": "CLIP-WIT", "samples_seen": 12.8e9},
            {"model": "hf-hub:timm/ViT-SO400M-14-SigLIP", "samples_seen": float("nan")},
        ]
    )
    assert list(names.short.values()) == [
        "ViT-H-14 · LAION-2B · 34.7B",
        "ViT-L-14 · CLIP-WIT · 12.8B",
        "ViT-SO400M-14-SigLIP",
    ]


def test_equal_names_get_their_tag_and_where_that_is_equal_too_the_spec():
    def row(tag: str) -> dict[str, object]:
        return {"model": f"B,{tag}", "arch": "B", "source": "S", "samples_seen": 3e9, "pretrained": tag}

    names = display_names([row("one"), row("two"), row("a/same.pt"), row("b/same.pt")])
    assert list(names.short.values()) == ["B · S · 3B (one)", "B · S · 3B (two)", "B,a/same.pt", "B,b/same.pt"]


def test_the_folder_of_local_runs_is_said_once():
    names = display_names(
        [{"model": "demo/ladder/xs-16000"}, {"model": "demo/ladder/m/checkpoints/samples_000000064000.pt"}]
    )
    assert names.folder == "demo/ladder/"
    assert list(names.short.values()) == ["xs-16000", "m · 64k"]
    assert names["of another table"] == "of another table"


def test_a_name_that_somebody_gave_stays():
    assert display_names([{"model": "ours", "arch": "ViT-B-32", "source": "LAION-2B"}])["ours"] == "ours"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (34.7254e9, "34.7B"),
        (12.8e9, "12.8B"),
        (64_000, "64k"),
        (999_960, "1M"),
        (999_400, "999k"),
        (7, "7"),
        (None, ""),
    ],
)
def test_samples_have_three_digits(count, shown):
    assert samples(count) == shown
