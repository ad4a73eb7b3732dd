"""What a cell id is made of: every part changes it, names and facts are no part, and it stays what it is."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from clipeval.identity import CheckpointIdentity, DatasetIdentity, Measure, cell_id, unidentified_cell_id

CHECKPOINT = CheckpointIdentity("w" * 64, "m", "p", "t", "clipeval 1, open_clip 3")
DATASET = DatasetIdentity("f" * 64, "trained", "prompts")
MEASURE = Measure("linear_probe", 2, 4, 1, "default", 100, "bf16")


def test_a_cell_id_stays_what_it_is():
    """A changed id measures everybody's cells again."""
    assert cell_id(CHECKPOINT, DATASET, MEASURE) == "54f348429586b6d6298cab78100c9b6d"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_part_counts(place):
    parts = [CHECKPOINT, DATASET, MEASURE]
    ids = {cell_id(*parts)}
    for field in fields(parts[place]):
        changed = list(parts)
        value = getattr(parts[place], field.name)
        changed[place] = replace(parts[place], **{field.name: value + 1 if isinstance(value, int) else f"{value}x"})
        ids.add(cell_id(*changed))
    assert len(ids) == 1 + len(fields(parts[place]))


def test_what_is_unknown_is_never_what_is_known():
    known = cell_id(CHECKPOINT, DATASET, MEASURE)
    names = ("m", "d", "test")
    unknown = {
        unidentified_cell_id(names, checkpoint, dataset, MEASURE)
        for checkpoint in (CHECKPOINT, None)
        for dataset in (DATASET, None)
    }
    assert len({known, *unknown}) == 5
    assert unidentified_cell_id(("n", "d", "test"), None, DATASET, MEASURE) not in unknown
