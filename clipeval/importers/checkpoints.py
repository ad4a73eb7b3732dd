"""What is known of a checkpoint that an imported figure was measured on: compute, data, and how it was trained."""

from __future__ import annotations

import csv
import fnmatch
import math
import re
from dataclasses import asdict
from functools import cache
from importlib import resources

from clipeval.models import zoo
from clipeval.models.base import ModelInfo
from clipeval.results.ledger import Row

_UNKNOWN = "-"


def as_trained(arch: str, pretrained: str) -> str:
    """open_clip's name of the architecture with the activation that the weights were trained with.

    For figures that are known to be measured that way under either name: open_clip before 3.0 built OpenAI's weights
    with QuickGELU whatever the name said.
    """
    row = zoo.checkpoints().get((arch, pretrained))
    return arch if row is None or row.activation_matches else zoo.other_activation(arch)


def describe(arch: str, pretrained: str, *, activation_is_right: bool = False) -> Row:
    """Columns of the results table that describe a checkpoint; what the public zoo does not know is NaN or empty.

    The table ``training.csv`` beside this file says how public checkpoints were trained: of the rows whose patterns
    match, the first that is not empty gives loss, initialisation and stage. ``activation_is_right``: the figures come
    from the activation that the weights were trained with, whatever ``arch`` is called.
    """
    row = dict(_described(arch, pretrained, activation_is_right))
    del row["gmacs_total"]  # a product, left to ``with_compute``: files have samples seen and GMACs of their own
    return row


@cache
def _described(arch: str, pretrained: str, activation_is_right: bool) -> Row:
    known = zoo.checkpoints().get((arch, pretrained))
    if known is None:
        named = {"model": f"{arch},{pretrained}", "arch": arch, "pretrained": pretrained, "from_scratch_filter": ""}
        return asdict(zoo.info_of_architecture(arch)) | named
    info = zoo.info_of(known)
    rules = [rule for rule in _rules() if _applies(rule, arch, pretrained)]
    wrong = "" if known.activation_matches or activation_is_right else "wrong activation"
    trained = {column: _first(rules, column) for column in ("loss", "init", "stage", "same_weights_as")}
    left_out = {"from_scratch_filter": "; ".join(filter(None, (wrong, info.from_scratch_filter)))}
    return asdict(info) | trained | left_out | {"samples_seen_tolerance": _tolerance(info)}


@cache
def _rules() -> list[dict[str, str]]:
    text = (resources.files("clipeval.importers") / "training.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def _applies(rule: dict[str, str], arch: str, pretrained: str) -> bool:
    name = arch.removesuffix("-quickgelu")
    return fnmatch.fnmatchcase(name, rule["arch"]) and fnmatch.fnmatchcase(pretrained, rule["pretrained"])


def _first(rules: list[dict[str, str]], column: str) -> str:
    found = next((rule[column] for rule in rules if rule[column]), "")
    return "" if found == _UNKNOWN else found


def _tolerance(info: ModelInfo) -> float:
    """A tag names whole billions or millions, rounded (s13b: 12.8e9) or cut (s34b: 34.7e9): off by up to one."""
    if info.samples_seen_from != "tag":
        return math.nan
    found = re.search(r"_s(\d+)[bm]_", info.pretrained)
    return 1 / int(found[1]) if found else math.nan


def with_compute(row: Row) -> Row:
    """The row with ``gmacs_total`` (unless it has one) and ``epochs``, which follow from its other columns."""
    return (
        {"gmacs_total": row["gmacs"] * row["samples_seen"]}
        | row
        | {"epochs": row["samples_seen"] / row["unique_samples"]}
    )
