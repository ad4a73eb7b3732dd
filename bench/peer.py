"""CLIP_benchmark and open_clip_train in an environment they work in.

Freshly installed, CLIP_benchmark needs two things it does not ask for: ``requests``, and a NumPy older than 2.4;
open_clip_train needs a webdataset of before 1.0. The environment ``.bench-venv`` sees the packages of the running one
and puts these before them, so that all tools run on the same PyTorch and open_clip.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

OLDER = ("numpy==2.3.5", "webdataset==0.2.86")
FOLDER = Path(__file__).parent.parent / ".bench-venv"


@cache
def python() -> str:
    """The interpreter of the peer's environment, built on first use."""
    interpreter = FOLDER / "bin" / "python"
    if not (FOLDER / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", *OLDER], check=True)
        [site] = FOLDER.glob("lib/python*/site-packages")
        (site / "zz_below.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        (FOLDER / ".ready").touch()
    return str(interpreter)
