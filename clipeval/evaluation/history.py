"""What the ledger says of the cells of a plan: which are done, and which an earlier version has measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from clipeval import digest
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.shelf import Shelf
from clipeval.results.ledger import Ledger, Record

if TYPE_CHECKING:
    from clipeval.models.opened import Opened


class History:
    """What the ledger says of the cells of a plan."""

    def __init__(self, ledger: Ledger, checkpoints: Mapping[str, Opened | ClipevalError], shelf: Shelf) -> None:
        self._standing = ledger.standing
        self._checkpoints, self._shelf = checkpoints, shelf
        self._outdated = 0

    def compared(self, cell: Cell, rerun: str) -> Cell:
        """The cell with the state ``done`` where the record that stands in the table is of this very cell."""
        record = self._standing.get(cell.measurement)
        if record is None or rerun == "always" or cell.state not in ("to do", "skipped"):
            return cell
        if record.cell != cell.id and record.cell != self._earlier_id(cell, record):
            self._outdated += _is_earlier(record)
            return cell
        return replace(cell, state="done") if record.finished or rerun == "never" else cell

    def notes(self) -> Iterator[str]:
        """Why cells of an earlier version's ledger are measured again."""
        if self._outdated:
            yield (
                f"{self._outdated} cells are measured again, from the cache where it has them: an earlier clipeval "
                "recorded them without the training data or the configuration beside the weights or computed fp32 with "
                "TF32 on a GPU, or they have changed."
            )

    def _earlier_id(self, cell: Cell, record: Record) -> str | None:
        """The cell's id by the formula of version 1, where that and the architecture in the rows of ``record`` cover
        everything that decides its values."""
        checkpoint, dataset = self._checkpoints[cell.model.name], self._shelf.open(cell.dataset)
        covered = cell.model.kind in ("tag", "file", "hf", "trained") and "train" not in cell.task.needs
        if (
            not covered
            or cell.measure.metric
            or isinstance(checkpoint, ClipevalError)
            or not isinstance(dataset, Dataset)
        ):
            return None
        if cell.precision == "fp32" and str(record.rows[0].get("device")).startswith("cuda"):
            return None  # its convolutions were TF32
        info, prompts = checkpoint.info, dataset.prompts
        if record.rows[0].get("arch", info.arch) != info.arch:
            return None
        parts = {
            "model": cell.model.name,
            "weights": info.checkpoint_sha256,
            "metadata": info.samples_seen_from + repr((info.source, info.samples_seen, info.gmacs)),
            "dataset": cell.dataset,
            "split": cell.entry.split,
            "other_splits": None,
            "fingerprint": dataset.fingerprint,
            "prompts": digest.of_value([prompts.classes, prompts.wording]) if prompts else None,
            "task": [cell.task.name, cell.task.version],
            **{name: getattr(cell, name) for name in ("shots", "seed", "protocol", "limit", "precision")},
        }
        return digest.of_value(parts)[:32]


def _is_earlier(record: Record) -> bool:
    return all("checkpoint_identity" not in row for row in record.rows)
