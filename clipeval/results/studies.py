"""The studies whose tables come with clipeval: what they are, whom to cite, and what to ask of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipeval.results.published import folder, published
from clipeval.results.schema import COLUMNS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Study:
    """``cite`` is the work, ``licence`` that of each repository in ``origin``; ``ask`` are the words of a command."""

    name: str
    title: str
    cite: str
    origin: str
    licence: str
    ask: str


STUDIES = {
    study.name: study
    for study in (
        Study(
            "cherti2023",
            "CLIP on LAION and OpenAI's WIT: zero-shot, linear probes, fine-tuning",
            "Cherti et al. 2023, arXiv:2212.07143",
            "LAION-AI/scaling-laws-openclip, LAION-AI/CLIP_benchmark",
            "none stated; MIT",
            "clipeval fit cherti2023 --preset cherti2023",
        ),
        Study(
            "clip_benchmark",
            "released CLIP checkpoints on the data sets of CLIP_benchmark",
            "LAION-AI/CLIP_benchmark",
            "LAION-AI/CLIP_benchmark",
            "MIT",
            "clipeval fit clip_benchmark -t retrieval",
        ),
        Study(
            "open_clip",
            "checkpoints of open_clip on 38 data sets, and retrieval in many languages",
            "Ilharco et al. 2021, doi:10.5281/zenodo.5143773",
            "mlfoundations/open_clip",
            "MIT",
            "clipeval fit open_clip -d imagenet1k",
        ),
        Study(
            "alabdulmohsin2022",
            "learning curves of six image classifiers on 12 few-shot tasks",
            "Alabdulmohsin et al. 2022, arXiv:2209.06640",
            "google-research/google-research, revisiting_neural_scaling_laws",
            "Apache-2.0",
            "clipeval fit alabdulmohsin2022 -d imagenet1k --x samples_seen --law m4",
        ),
        Study(
            "gadre2024",
            "language models, over-trained, on three sources: loss on C4",
            "Gadre et al. 2024, arXiv:2403.08540",
            "mlfoundations/scaling",
            "MIT",
            "clipeval fit gadre2024 --law joint_shared --x params,samples_seen",
        ),
        Study(
            "muennighoff2023",
            "language models on repeated data: loss on C4, up to 60 epochs",
            "Muennighoff et al. 2023, arXiv:2305.16264",
            "huggingface/datablations",
            "Apache-2.0",
            "clipeval fit muennighoff2023 --law joint_repeats --x params,samples_seen,unique_samples",
        ),
    )
}


def study(name: str) -> pd.DataFrame:
    """The rows of a study, with all columns of the schema. Raises KeyError for an unknown name."""
    import pandas as pd

    path = folder() / "scaling" / f"{STUDIES[name].name}.parquet"
    if not path.is_file():
        rows = published()
        return rows[rows["study"].isin([name]).to_numpy(bool)]
    found = pd.read_parquet(path)
    return found.assign(
        **{column: pd.Series(pd.NA, found.index, kind) for column, kind in COLUMNS.items() if column not in found}
    )


def listed() -> list[dict[str, Any]]:
    """Each study with the size of its tables."""
    return [
        vars(one) | {"models": int(rows["model"].nunique()), "rows": len(rows)}
        for one in STUDIES.values()
        for rows in (study(one.name),)
    ]
