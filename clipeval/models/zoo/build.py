"""Write the shipped tables of the public zoo anew: ``python -m clipeval.models.zoo.build``.

Run it after an upgrade of open_clip; it takes about two minutes and needs no network.

    architectures.csv   every architecture of open_clip, profiled (``profile.measure``). Those whose text tower is a
                        model of the Hugging Face hub cannot be built without it: their rows are kept as they are,
                        from open_clip's docs/model_profile.csv, which gives 2 x GMACs.
    pretrained.csv      every tag of open_clip and every file of ``zoo_facts.csv``, with what is known of its training.

``zoo_facts.csv`` is written by hand. The first row whose ``arch`` and ``pretrained`` patterns match a checkpoint
describes it; ``-quickgelu`` at the end of an architecture is not compared. ``samples_seen`` is empty where nobody says
it; with ``samples_seen_from`` = tag it is read from the tag (``..._s13b_b90k``). ``{arch}`` in ``from_scratch_filter``
is the checkpoint's architecture. A tag that no row matches stops the script.
"""

from __future__ import annotations

import csv
import fnmatch
import re
import sys
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from clipeval.models import library, profile, zoo

_FOLDER = Path(__file__).parent
_UNITS = {"b": 1e9, "m": 1e6}


def main() -> None:
    """Write both tables beside this file."""
    architectures = [_architecture_row(arch) for arch in library.list_architectures()]
    _write("architectures.csv", [field.name for field in fields(zoo.Architecture)], architectures)
    columns = dict.fromkeys(("arch", "pretrained", *(field.name for field in fields(zoo.Checkpoint))))
    _write("pretrained.csv", list(columns), _checkpoint_rows())


def _architecture_row(arch: str) -> dict[str, Any]:
    config = library.architecture_config(arch)
    if "hf_model_name" in config["text_cfg"]:
        row = asdict(zoo.architectures()[arch])
    else:
        row = {"arch": arch, "gmacs_from": "torch.utils.flop_counter", **asdict(profile.measure(config))}
        print(f"{arch}: {row['gmacs']:.2f} GMACs", file=sys.stderr)  # noqa: T201
    row["quick_gelu"] = bool(config.get("quick_gelu", False))
    row["open_clip"] = metadata.version("open_clip_torch")
    return {name: f"{value:.10g}" if isinstance(value, float) else value for name, value in row.items()}


def _checkpoint_rows() -> list[dict[str, Any]]:
    with (_FOLDER / "zoo_facts.csv").open(encoding="utf-8", newline="") as file:
        facts = list(csv.DictReader(file))
    rows, names = [], library.list_architectures()
    for arch, tag in library.list_tags():
        settings = library.tag_settings(arch, tag)
        fact = _first_match(facts, arch.removesuffix("-quickgelu"), tag)
        quick_gelu = settings.get("quick_gelu", False)
        if zoo.other_activation(arch) not in names:  # one activation only, whatever the tag's missing flag suggests
            quick_gelu = library.architecture_config(arch).get("quick_gelu", False)
        rows.append(_checkpoint_row(fact, arch, tag, settings["hub"], quick_gelu))
    files = [fact for fact in facts if fact["pretrained"].startswith("hf://")]
    for fact in files:
        hub = fact["pretrained"].removeprefix("hf://")
        rows.append(_checkpoint_row(fact, fact["arch"], fact["pretrained"], hub, quick_gelu=False))
    return rows


def _first_match(facts: list[dict[str, str]], arch: str, tag: str) -> dict[str, str]:
    for fact in facts:
        if fnmatch.fnmatchcase(arch, fact["arch"]) and fnmatch.fnmatchcase(tag, fact["pretrained"]):
            return fact
    raise SystemExit(f"zoo_facts.csv: no row matches {arch},{tag}. Add one that says what it was trained on.")


def _checkpoint_row(fact: dict[str, str], arch: str, tag: str, hub: str, quick_gelu: bool) -> dict[str, Any]:
    known: dict[str, Any] = {"arch": arch, "pretrained": tag, "hub": hub, "quick_gelu": quick_gelu}
    known["from_scratch_filter"] = fact["from_scratch_filter"].replace("{arch}", arch)
    if fact["samples_seen_from"] == "tag":
        number, unit = re.search(r"_s(\d+)([bm])_", tag).groups()  # type: ignore[union-attr]
        known["samples_seen"] = int(int(number) * _UNITS[unit])
    return fact | known


def _write(name: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with (_FOLDER / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
