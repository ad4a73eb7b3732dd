"""``clipeval push``: the results of one checkpoint to its model page, or a whole table as a data set of the hub."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval import config as configuration
from clipeval.console import show
from clipeval.errors import MeasureError, UsageError, counted, few, suggest
from clipeval.names import display_names
from clipeval.remote.hub import Repository
from clipeval.remote.upload import Upload
from clipeval.reporting import card
from clipeval.reporting import rows as table
from clipeval.reporting.exports import whole
from clipeval.results.columns import records
from clipeval.results.reading import Results, named, read_tables, typed
from clipeval.version import __version__

if TYPE_CHECKING:
    import pandas as pd

README = "README.md"
_TABLE = "results.parquet"
_OF_A_NEW_ONE = " of a new repository; one that is there keeps its text"
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_FACTS = ("model", "arch", "source", "pretrained", "samples_seen")


@dataclass(frozen=True)
class Pushed:
    """What goes up as one commit: ``files`` by path. ``address`` is that of the commit, empty where nothing went up;
    the README.md is then as it would be in a new repository. ``notes`` say what stays behind."""

    repository: Repository
    files: Mapping[str, bytes] = field(repr=False)
    notes: tuple[str, ...] = ()
    address: str = ""


def push(
    results: Results,
    repo: str,
    *,
    model: str | None = None,
    dataset: bool = False,
    private: bool = False,
    yes: bool = False,
    config: configuration.Config | str | Path | None = None,
) -> Pushed:
    """Upload results to the repository ``repo`` (ORG/NAME) of the hub, if ``yes``; else only say what would go up, with
    no request.

    Of one checkpoint: ``.eval_results/*.yaml``, one file for each data set that is on the hub, and the ``model-index``
    of its README.md, of which all else stays as it is. ``model`` chooses it where there are several, by its name or the
    one that people read. With ``dataset`` the whole table, as Parquet, to a data set repository. A repository that is
    not there is made, ``private`` or public. Raises UsageError for wrong names, for several checkpoints, and without a
    token; MeasureError where there is nothing to show; RemoteError for what the hub refuses.
    """
    if not _REPOSITORY.fullmatch(repo) or ".." in repo:
        raise UsageError(f"{repo:.200}: not the name of a repository of the hub, which is ORG/NAME.")
    if dataset and model is not None:
        raise UsageError("--model chooses a checkpoint for a model repository; --dataset takes the whole table.")
    if not isinstance(config, configuration.Config):
        config = configuration.load(config)
    repository = Repository("dataset" if dataset else "model", repo)
    rows = None if dataset else table.read(results, config)
    made = _of_table(results, repo) if rows is None else _of_model(rows, named(results), model, config)
    if not yes:
        return Pushed(repository, made.files(None), made.notes)
    upload = Upload(repository, private=private)
    files = made.files(upload.text(README))
    address = upload.commit(files, f"Results, by clipeval {__version__}")
    return Pushed(repository, files, made.notes, address)


@dataclass(frozen=True)
class _Made:
    """What is ready: files, and how the README.md follows from the one that is there."""

    others: Mapping[str, bytes]
    readme: Callable[[str | None], str]
    notes: tuple[str, ...] = ()

    def files(self, old: str | None) -> dict[str, bytes]:
        text = self.readme(old)
        return ({} if text == old else {README: text.encode()}) | dict(self.others)


def _of_model(rows: pd.DataFrame, name: str, model: str | None, config: configuration.Config) -> _Made:
    shown = whole(rows)
    names = display_names(records(rows[list(_FACTS)]))
    there = sorted(rows["model"].unique())
    readable = sorted(names[one] for one in there)
    if model is None and len(there) > 1:
        listed = few([f"'{one}'" for one in readable], 5)
        raise UsageError(
            f"{name}: a model card holds one checkpoint, and these are {len(there)}: {listed}. Choose one with "
            "--model, or upload the whole table with --dataset."
        )
    chosen = there if model is None else [one for one in there if model in (one, names[one])]
    if not chosen:
        raise UsageError(
            f"{name}: no checkpoint '{model}'.{suggest(str(model), [*readable, *there])} There are {few(readable, 5)}."
        )
    own = shown[shown["model"] == chosen[0]]
    if own.empty:
        raise MeasureError(f"{name}: {chosen[0]} has no value of a whole data set, so its card would be empty.")
    results = card.eval_results(own, config)
    told = len(set(own["dataset"][~own["suite"]])) - len(results)
    notes = [f"{counted(told, 'data set')} not on the hub: values in the README.md only"] if told else []
    left = int((rows["model"] == chosen[0]).sum()) - len(own)
    notes += (
        [f"{counted(left, 'row')} not uploaded: limited, failed, or of an earlier point of the training run"]
        if left
        else []
    )
    return _Made(
        {path: text.encode() for path, text in results.items()},
        lambda old: card.model_card(own, names[chosen[0]], old, name),
        tuple(notes),
    )


def _of_table(results: Results, repo: str) -> _Made:
    frame = typed(read_tables(results)).drop(columns="results_file", errors="ignore")
    if frame.empty:
        raise MeasureError(f"{named(results)}: the table has no rows.")
    page = io.BytesIO()
    frame.to_parquet(page, index=False)
    return _Made({_TABLE: page.getvalue()}, lambda old: _dataset_card(frame, repo) if old is None else old)


def _dataset_card(frame: pd.DataFrame, repo: str) -> str:
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        pretty_name=repo.partition("/")[2],
        task_categories=["zero-shot-image-classification"],
        tags=["clip", "clipeval"],
        configs=[{"config_name": "default", "data_files": _TABLE}],
    )
    name, counts = repo.partition("/")[2], [f"{frame[what].nunique():,}" for what in ("model", "dataset")]
    body = [
        f"# {name}\n",
        f"{len(frame):,} rows: {counts[0]} checkpoints on {counts[1]} data sets. One row is one value of one metric,",
        f"as clipeval {__version__} writes them: `value` is a fraction, `ci_low` to `ci_high` its 95 % interval.\n",
        f'    import clipeval\n    clipeval.leaderboard("{_TABLE}")\n',
    ]
    return card.page(data, "\n".join(body))


def show_pushed(pushed: Pushed) -> None:
    """What went up, or would, on the terminal."""
    verb = "Uploaded to" if pushed.address else "Would upload to"
    show(f"{verb} {pushed.repository.page}, as one commit:")
    for path, data in pushed.files.items():
        show(f"  {path}  {len(data):,} bytes")
    for note in pushed.notes:
        show(f"· {note}")
    if pushed.address:
        return show(pushed.address)
    for path, data in pushed.files.items():
        if not path.endswith(".parquet"):
            show(f"--- {path}{_OF_A_NEW_ONE if path == README else ''}")
            for line in data.decode().splitlines():
                show(line)
    return show("Nothing was sent. Upload it with --yes.")
