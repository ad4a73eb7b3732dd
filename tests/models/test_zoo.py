"""The shipped tables of public checkpoints."""

import math
from dataclasses import fields

import open_clip
import pytest

from clipeval import config, models
from clipeval.models import ModelInfo, zoo, zoo_table
from clipeval.models.zoo import build

COLUMNS = [field.name for field in fields(ModelInfo) if field.name != "checkpoint_sha256"] + [
    "family",
    "note",
    "reference",
]


def test_every_tag_of_the_installed_open_clip_is_in_the_table() -> None:
    known = set(zoo.checkpoints())
    new = [pair for pair in open_clip.list_pretrained() if pair not in known]
    assert not new, "run python -m clipeval.models.zoo.build"
    assert set(open_clip.list_models()) == set(zoo.architectures())


def test_the_tables_agree_with_open_clip_on_activation_and_address() -> None:
    for arch, tag in open_clip.list_pretrained():
        row, settings = zoo.checkpoints()[arch, tag], open_clip.get_pretrained_cfg(arch, tag)
        assert row.hub == settings["hf_hub"]
        if arch != "roberta-ViT-B-32":  # its configuration says QuickGELU, its only tag says nothing
            assert row.quick_gelu == settings.get("quick_gelu", False)
    for name, row in zoo.architectures().items():
        assert row.quick_gelu == bool(open_clip.get_model_config(name).get("quick_gelu", False))


def test_table_rows() -> None:
    table = zoo_table()
    assert all(list(row) == COLUMNS for row in table)
    ours = [row for row in table if row["family"] == "open_clip"]
    assert len({row["model"] for row in table}) == len(table) == len(ours) + len(zoo.repositories())
    assert len(ours) == len(open_clip.list_pretrained()) + 29
    assert all(row["params"] > 0 and row["gmacs"] > 0 for row in ours)
    assert all(row["source"] and row["reference"] for row in table)
    origins = {"measured", "tag", "epochs", "card", "paper"}
    assert all((row["samples_seen_from"] in origins) == (row["samples_seen"] > 0) for row in table)
    for row in table:
        assert math.isnan(row["gmacs_total"]) or row["gmacs_total"] == row["gmacs"] * row["samples_seen"]


@pytest.mark.parametrize(
    ("model", "source", "samples_seen", "origin"),
    [
        ("ViT-B-16,datacomp_l_s1b_b8k", "DataComp-L", 1.28e9, "card"),  # the tag says 1e9
        ("ViT-L-14,datacomp_xl_s13b_b90k", "DataComp-1B", 12.8e9, "card"),
        ("ViT-H-14,laion2b_s32b_b79k", "LAION-2B", 34725395968, "paper"),
        ("ViT-B-32,laion2b_s34b_b79k", "LAION-2B", 34725395968, "paper"),
        ("ViT-g-14,laion2b_s12b_b42k", "LAION-2B", 12208147020, "paper"),
        ("ViT-B-16,laion2b_s34b_b88k", "LAION-2B", 34215894963, "paper"),
        ("ViT-L-14,laion2b_s32b_b82k", "LAION-2B", 32e9, "paper"),
        ("ViT-g-14,laion2b_s34b_b88k", "LAION-2B", 34e9, "tag"),
        ("ViT-B-32,laion2b_e16", "LAION-2B", 34725396128, "epochs"),
        ("ViT-B-16,laion400m_e32", "LAION-400M", 32 * 407332084, "epochs"),
        ("ViT-B-32-quickgelu,openai", "CLIP-WIT", 12.8e9, "paper"),
        ("ViT-L-14-quickgelu,metaclip_fullcc", "MetaCLIP-2.5B", 12.8e9, "card"),
        ("ViT-L-14,dfn2b_s39b", "DFN-2B", 39e9, "card"),
        ("ViTamin-B-LTT,datacomp1b", "DataComp-1B", 1.28e9, "card"),
        ("ViTamin-L2,datacomp1b", "DataComp-1B", 12.8e9, "card"),
        ("ViTamin-L-336,datacomp1b", "DataComp-1B", 12.8e9 + 0.2e9, "card"),
        ("ViTamin-L2-384,datacomp1b", "DataComp-1B", 12.8e9 + 0.5e9, "card"),
        ("ViTamin-XL-256,datacomp1b", "DataComp-1B", 12.8e9 + 0.5e9, "card"),
        ("ViT-bigG-14-CLIPA,datacomp1b", "DataComp-1B", 12.8e9 + 512e6, "card"),
        ("ViT-H-14-CLIPA-336,laion2b", "LAION-2B", 12.8e9 + 512e6 + 128e6, "card"),
        (
            "ViT-B-32,hf://laion/scaling-laws-openclip/Model-B-32_Data-80M_Samples-3B_lr-5e-4_bs-32k.pt",
            "LAION-80M",
            32 * 80000415,
            "paper",
        ),
        (
            "ViT-L-14,hf://laion/scaling-laws-openclip/Model-L-14_Data-400M_Samples-34B_lr-1e-3_bs-86k.pt",
            "LAION-400M",
            34215895056,
            "paper",
        ),
    ],
)
def test_samples_seen_are_not_what_tags_say(model: str, source: str, samples_seen: float, origin: str) -> None:
    (row,) = [row for row in zoo_table() if row["model"] == model]
    assert (row["source"], row["samples_seen"], row["samples_seen_from"]) == (source, samples_seen, origin)


def test_repositories_of_transformers_have_the_facts_of_the_same_weights() -> None:
    rows = {row["model"]: row for row in zoo_table()}
    for repository, other in zoo.repositories().items():
        row = rows[f"transformers:{repository}"]
        if other.arch:
            same = rows[f"{other.arch},{other.pretrained}"]
            assert zoo.checkpoints()[other.arch, other.pretrained].activation_matches
            assert (other.source, other.reference) == ("", "")
            own = {"model", "pretrained", "family"}
            assert {key: repr(row[key]) for key in row.keys() - own} == {
                key: repr(same[key]) for key in same.keys() - own
            }
    specs = models.resolve(["transformers"], config.packaged())
    assert [spec.name for spec in specs] == [f"transformers:{name}" for name in zoo.repositories()]
    assert rows["transformers:openai/clip-vit-base-patch32"]["samples_seen"] == 12.8e9


def test_unknown_samples_stay_unknown() -> None:
    unknown = [row for row in zoo_table() if math.isnan(row["samples_seen"])]
    assert sum(row["family"] == "open_clip" for row in unknown) == 48
    assert {"ViT-B-16-SigLIP,webli", "ViTamin-XL-336,datacomp1b"} <= {row["model"] for row in unknown}
    assert all(math.isnan(row["gmacs_total"]) for row in unknown)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("EVA02-B-16,merged2b_s8b_b131k", "pre-initialised tower"),
        ("convnext_xxlarge,laion2b_s34b_b82k_augreg_soup", "fine-tuned"),
        ("coca_ViT-B-32,mscoco_finetuned_laion2b_s13b_b90k", "fine-tuned"),
        ("ViTamin-S-LTT,datacomp1b", "pre-initialised tower"),
        ("ViT-L-14-CLIPA-336,datacomp1b", "high-resolution stage; CLIPA stages"),
        ("ViT-B-16-SigLIP2-512,webli", "high-resolution stage"),
        ("ViT-SO400M-14-SigLIP-378,webli", "high-resolution stage"),
        ("ViT-B-32-quickgelu,laion400m_e31", "same run as ViT-B-32-quickgelu,laion400m_e32"),
        ("MobileCLIP-B,datacompdr", "distilled from other models"),
        ("ViT-B-16-SigLIP2,webli", ""),
        ("ViTamin-L,datacomp1b", ""),
        ("ViT-H-14,laion2b_s32b_b79k", ""),
    ],
)
def test_what_a_law_of_training_from_scratch_leaves_out(model: str, reason: str) -> None:
    (row,) = [row for row in zoo_table() if row["model"] == model]
    assert row["from_scratch_filter"] == reason


def test_the_paper_s_checkpoints_are_all_trained_from_scratch() -> None:
    assert {row.from_scratch_filter for row in zoo.members("cherti2023")} == {""}


def test_the_table_is_what_the_facts_by_hand_make_of_the_tags() -> None:
    """As ``python -m clipeval.models.zoo.build`` writes it, for the installed open_clip."""
    for made in build._checkpoint_rows():
        kept = zoo.checkpoints()[made["arch"], made["pretrained"]]
        assert kept.from_scratch_filter == made["from_scratch_filter"]
        assert (kept.note, kept.reference) == (made["note"], made["reference"])
        assert (
            math.isnan(kept.samples_seen)
            if made["samples_seen"] == ""
            else kept.samples_seen == float(made["samples_seen"])
        )


def test_the_paper_s_design() -> None:
    paper = [zoo.checkpoints()[row.arch, row.pretrained] for row in zoo.members("cherti2023")]
    counts = {source: sum(row.source == source for row in paper) for source in ("LAION-80M", "LAION-400M", "LAION-2B")}
    assert counts == {"LAION-80M": 9, "LAION-400M": 9, "LAION-2B": 11}
    assert {row.source_family for row in paper} == {"LAION", "CLIP-WIT"}


def test_weights_offered_with_the_wrong_activation_have_a_right_twin() -> None:
    wrong = [row for row in zoo.checkpoints().values() if not row.activation_matches]
    assert len(wrong) == 27
    for row in wrong:
        twin = zoo.checkpoints()[zoo.other_activation(row.arch), row.pretrained]
        assert twin.activation_matches
        assert twin.hub == row.hub
    assert not set(wrong) & {row for name in zoo.ZOOS for row in zoo.members(name)}
