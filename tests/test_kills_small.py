"""``python -m bench kills`` in small: SIGKILLs in every command that writes, and a mistake that they must find."""

from __future__ import annotations

import subprocess
import sys

from imports import ROOT

SCRIPT = """
from pathlib import Path
import sys, time
from bench import kills
from clipeval.results import table

kills.main("--kills", "50", "--seed", "1")

def in_place(path, write):
    path.parent.mkdir(exist_ok=True)
    path.write_text("half")
    time.sleep(0.4)
    write(path)

table.write_atomically = in_place
kills.main("--kills", "8", "--seed", "1", "--of", "import")
"""


def test_kills_lose_nothing_and_would_be_noticed():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    endings = [line for line in done.stdout.splitlines() if " kills hit: " in line]
    assert len(endings) == 2, done.stdout + done.stderr[-3000:]
    assert endings[0].startswith("50 kills hit: 0 lost, 0 wrong, 0 doubled"), done.stdout
    assert "cache/" not in done.stdout, "temporary files in the cache"
    assert " 0 wrong" not in endings[1], done.stdout
    assert done.returncode == 1
