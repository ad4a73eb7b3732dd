"""``python -m bench [NAME]...``: run all benchmarks, or those named."""

from __future__ import annotations

import argparse
import importlib
import sys

NAMES = (
    *(
        "startup",
        "threads",
        "retrieval",
        "probe",
        "prompts",
        "fit",
        "outlook",
        "gate",
        "end_to_end",
        "input",
        "feed",
        "loss",
        "gpu",
        "scale",
        "large",
    ),
    "train",
)
LONG = ("fuzz", "kills", "architectures", "laws")
"""Of ten minutes to an hour: run only where they are named."""
OF_A_FOLDER = ("studies",)
"""On data that are not here."""
OF_DOCUMENTS = ("readme",)
"""What they show against what is printed: no benchmark."""
WITH_OPTIONS = (*LONG, *OF_A_FOLDER, *OF_DOCUMENTS, "gpu", "outlook")


def main() -> None:
    """Run benchmarks in turn; each is a module of this package with a ``main`` function."""
    words = sys.argv[1:]
    if words and words[0] in WITH_OPTIONS:
        names, options = words[:1], words[1:]
    else:
        parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
        parser.epilog = f"Or one of {', '.join(WITH_OPTIONS)}, which take options (--help)."
        names, options = parser.parse_args().names or NAMES, []
        if unknown := [name for name in names if name not in NAMES]:
            parser.error(f"no benchmark '{unknown[0]}'; there are {', '.join(NAMES + LONG)}")
    for name in names:
        module = importlib.import_module(f"bench.{name}")
        print(f"\n== {name}: {module.__doc__}", flush=True)
        module.main(*options)


main()
