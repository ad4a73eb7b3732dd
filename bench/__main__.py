"""``python -m bench [NAME]...``: run all benchmarks, or those named."""

from __future__ import annotations

import argparse
import importlib

NAMES = ("startup", "threads", "retrieval", "prompts", "fit", "end_to_end", "input", "loss", "gpu", "scale", "train")
LONG = ("fuzz", "kills")
"""Of an hour or so: run only where they are named."""


def main() -> None:
    """Run benchmarks in turn; each is a module of this package with a ``main`` function."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES + LONG)}; default: all but {' and '.join(LONG)}"
    )
    names = parser.parse_args().names or NAMES
    for name in names:
        if name not in NAMES + LONG:
            parser.error(f"no benchmark '{name}'; there are {', '.join(NAMES + LONG)}")
        print(f"\n== {name}: {importlib.import_module(f'bench.{name}').__doc__}", flush=True)
        importlib.import_module(f"bench.{name}").main()


main()
