"""What runs in a process of its own, here or on a machine of a cluster: one run of a ladder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipeval.exits import guarded


def pretrain(file: str) -> None:
    """Train the run whose configuration is in ``file``; exits as the command ``clipeval-train pretrain`` does."""

    def command(**_: Any) -> None:
        from clipeval_train.config import load_pretrain
        from clipeval_train.loop import pretrain as run

        run(load_pretrain(Path(file), []))

    guarded(command, "clipeval-train")
