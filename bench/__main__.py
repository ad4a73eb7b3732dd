"""``python -m bench [NAME]...``: run all benchmarks, or those named; ``python -m bench kills --help`` for its options."""

from __future__ import annotations

import argparse
import importlib
import sys

NAMES = ("startup", "threads", "retrieval", "prompts", "fit", "end_to_end", "input", "loss", "gpu", "scale", "train")
BY_NAME_ONLY = ("kills",)


def main() -> None:
    """Run benchmarks in turn; each is a module of this package with a ``main`` function."""
    words = sys.argv[1:]
    if words and words[0] in BY_NAME_ONLY:
        names, options = words[:1], words[1:]
    else:
        parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
        choices = ", ".join((*NAMES, *BY_NAME_ONLY))
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {choices}; default: all but the last")
        names, options = parser.parse_args().names or NAMES, []
    for name in names:
        if name not in (*NAMES, *BY_NAME_ONLY):
            sys.exit(f"no benchmark '{name}'; there are {', '.join((*NAMES, *BY_NAME_ONLY))}")
        module = importlib.import_module(f"bench.{name}")
        print(f"\n== {name}: {module.__doc__}", flush=True)
        module.main(*options)


main()
