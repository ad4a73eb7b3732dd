"""Write the shipped tables anew: ``python -m clipeval.importers.build_published RAW [-o FOLDER]``.

RAW is a folder with the files as published:

    cherti2023/      zeroshot_results.csv, imagenet_zeroshot_learning_curves.csv, arch_info.csv,
                     trained_models_info.csv of LAION-AI/scaling-laws-openclip
    clip_benchmark/  benchmark.csv, scaling_experiment_data2.json, scaling_experiment_data_vtab.json of
                     LAION-AI/CLIP_benchmark (folders benchmark and probe_benchmark)
    open_clip/       openclip_results.csv, openclip_retrieval_results.csv, openclip_multilingual_retrieval_results.csv
                     of mlfoundations/open_clip (folder docs)
    scaling/         curves_alabdulmohsin2022_vision.csv of google-research/google-research; with value = 1 - loss / 10
                     gadre2024_c4val.csv of mlfoundations/scaling and datablations_60.csv of huggingface/datablations

Each table is written as Parquet, and those of CLIP as CSV too (there without empty columns). Top-5 accuracy along the
learning curves and the figures of single languages are not shipped: ``clipeval import`` reads them from the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval.files import write_atomically
from clipeval.importers import checkpoints, cherti2023, datasets, scaling_studies
from clipeval.importers.import_files import import_files
from clipeval.results.published import folder
from clipeval.results.schema import to_frame

if TYPE_CHECKING:
    import pandas as pd

_PAPER = "Cherti et al., CVPR 2023, arXiv:2212.07143"


@dataclass(frozen=True)
class _Table:
    """One shipped table. ``origin`` is what stands before a file's name in ``reference``: paper, repository, commit."""

    name: str
    study: str
    origin: str
    files: tuple[str, ...]
    keep: Callable[[pd.DataFrame], pd.Series] | None = None


_TABLES = (
    _Table(
        "cherti2023_zeroshot",
        "cherti2023",
        f"{_PAPER}; LAION-AI/scaling-laws-openclip@652b1e7 ",
        ("cherti2023/zeroshot_results.csv",),
    ),
    _Table(
        "cherti2023_learning_curves",
        "cherti2023",
        f"{_PAPER}; LAION-AI/scaling-laws-openclip@652b1e7 ",
        ("cherti2023/imagenet_zeroshot_learning_curves.csv",),
        keep=lambda frame: frame["metric"] == "acc1",
    ),
    _Table(
        "cherti2023_linear_probe",
        "cherti2023",
        f"{_PAPER}; LAION-AI/CLIP_benchmark@48de38c probe_benchmark/",
        ("clip_benchmark/scaling_experiment_data2.json", "clip_benchmark/scaling_experiment_data_vtab.json"),
    ),
    _Table(
        "clip_benchmark_zeroshot",
        "clip_benchmark",
        "LAION-AI/CLIP_benchmark@48de38c benchmark/",
        ("clip_benchmark/benchmark.csv",),
    ),
    _Table(
        "open_clip_zeroshot",
        "open_clip",
        "mlfoundations/open_clip@89fb801 docs/",
        ("open_clip/openclip_results.csv", "open_clip/openclip_retrieval_results.csv"),
    ),
    _Table(
        "open_clip_multilingual",
        "open_clip",
        "mlfoundations/open_clip@89fb801 docs/",
        ("open_clip/openclip_multilingual_retrieval_results.csv",),
        keep=lambda frame: ~frame["dataset"].str.contains("/"),
    ),
)

_FINE_TUNED = (
    ("ViT-B-32", "laion2b_s34b_b79k", 0.8258, 0.8511),
    ("ViT-B-16", "laion2b_s34b_b88k", 0.8653, 0.8717),
    ("ViT-L-14", "laion2b_s32b_b82k", 0.8778, 0.8817),
    ("ViT-H-14", "laion2b_s32b_b79k", 0.8759, 0.8850),
)
"""ImageNet top-1 after fine-tuning on ImageNet-1k, and on ImageNet-12k first (author slides)."""


def main() -> None:
    """Write all tables and print what is to be known about them."""
    parser = argparse.ArgumentParser(description="Write the shipped tables anew.")
    parser.add_argument("raw", type=Path, help="folder with the files as published")
    parser.add_argument("-o", "--out", type=Path, default=folder(), help="where to write")
    arguments = parser.parse_args()
    for table in _TABLES:
        frame, notes = build(table, arguments.raw)
        write(frame, arguments.out, table.name)
        for note in (f"{len(frame)} rows", *notes):
            print(f"{table.name}: {note}")  # noqa: T201
    write(fine_tuning(), arguments.out, "cherti2023_finetune")
    for name, frame in scaling_studies.tables(arguments.raw / "scaling").items():
        _write_parquet(frame, arguments.out / "scaling" / f"{name}.parquet")


def build(table: _Table, raw: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """One table from its raw files, and the notes of the import."""
    imported = import_files([raw / file for file in table.files])
    frame = imported.frame
    if table.keep:
        frame = frame[table.keep(frame)].reset_index(drop=True)
    file_name = frame["reference"].str.extract(r"([^ /]+)$", expand=False)
    return frame.assign(study=table.study, reference=table.origin + file_name), imported.notes


def fine_tuning() -> pd.DataFrame:
    """The paper's fine-tuning figures. ``protocol`` names the data sets that the image tower was fine-tuned on."""
    rows = []
    for arch, pretrained, direct, by_way in _FINE_TUNED:
        shared = checkpoints.with_compute(checkpoints.describe(arch, pretrained)) | {
            "study": cherti2023.STUDY,
            "dataset": "imagenet1k",
            "task": "finetune",
            "metric": "acc1",
            "n": datasets.size("imagenet1k", "acc1"),
            "higher_is_better": True,
            "status": "ok",
            "reference": f"{_PAPER} (author slides)",
        }
        rows.append(shared | {"protocol": "imagenet1k", "value": direct})
        reason = {"from_scratch_filter": "fine-tuned on ImageNet-12k first"}
        rows.append(shared | reason | {"protocol": "imagenet12k, imagenet1k", "value": by_way})
    return to_frame(rows)


def write(frame: pd.DataFrame, out: Path, name: str) -> None:
    """Write both files of a table. Raises StoreError."""
    _write_parquet(frame, out / f"{name}.parquet")
    filled = frame.loc[:, frame.notna().any()]
    write_atomically(out / f"{name}.csv", lambda path: filled.to_csv(path, index=False))


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False, compression="zstd"))


if __name__ == "__main__":
    main()
