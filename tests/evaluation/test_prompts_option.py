"""``--prompts``: other prompts for all classification sets of a run, which are other cells."""

from __future__ import annotations

import json
from functools import partial

import pandas as pd
import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint


@pytest.fixture
def run(tmp_path, command):
    tiny_checkpoint(tmp_path / "a.pt")
    image_folder(tmp_path / "colours", per_class={"test": 2})
    caption_shards(tmp_path / "pairs")
    call = partial(command, "clipeval", "run", "-m", tmp_path / "a.pt", "-o", tmp_path / "out", "--workers", "0")

    def measured(*words):
        code, out, err = call("-d", f"folder:{tmp_path}/colours", "-d", f"wds:{tmp_path}/pairs", *words)
        table = tmp_path / "out" / "results.parquet"
        return code, pd.read_parquet(table) if table.exists() else None, out + err

    return measured


def test_prompts_of_a_file_are_another_cell_and_leave_retrieval_alone(run, tmp_path):
    names = ["red", "green", "blue", "yellow", "magenta", "cyan"]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"colours": {name: [f"all of it is {name}", "look"] for name in names}}))
    code, plain, _ = run()
    assert code == 0
    code, mine, said = run("--prompts", str(file))
    assert code == 0
    assert "[1/1]" in said  # the retrieval set has no prompts: it is not measured again
    before, after = (frame[frame.dataset == "colours"].iloc[0] for frame in (plain, mine))
    assert (before.prompts, after.prompts) == ("default", "mine")
    assert before.prompts_digest != after.prompts_digest
    assert before.dataset_fingerprint == after.dataset_fingerprint
    file.write_text(json.dumps({"colours": {name: [f"none of it is {name}", "look"] for name in names}}))
    _, other, said = run("--prompts", str(file))
    assert "[1/1]" in said
    assert other[other.dataset == "colours"].iloc[0].prompts_digest != after.prompts_digest
    _, _, said = run("--prompts", str(file))
    assert "[1/1]" not in said


def test_a_file_for_another_data_set_fails_its_cells_and_no_file_the_command(run, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"birds": ["wren", "crow"]}')
    code, table, said = run("--prompts", str(file))
    assert code == 3
    assert "colours: " in said
    assert "says nothing of this data set: it is about birds" in said
    assert set(table[table.dataset == "colours"].status) == {"failed"}
    assert set(table[table.dataset == "pairs"].status) == {"ok"}
    code, _, said = run("--prompts", "nothing.json")
    assert code == 2
    assert "prompts: there is no file 'nothing.json'" in said
