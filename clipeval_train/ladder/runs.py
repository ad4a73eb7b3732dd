"""One run of a ladder: its configuration, what it goes on from, and where its files are."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clipeval_train import checkpoint
from clipeval_train.config import PretrainConfig, parse_pretrain
from clipeval_train.initial import Initial
from clipeval_train.model import Architecture

FINISHED, STARTED, NEW = "finished", "started", "new"


class _WithoutAliases(yaml.SafeDumper):
    """A value that comes twice is written twice: configurations are read without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class Run:
    """One pre-training run: ``document`` is its configuration as a file holds it, ``config`` the same, validated."""

    name: str
    document: dict[str, Any]
    config: PretrainConfig
    architecture: Architecture
    home: Path
    """The folder of the ladder."""
    processes: int = 1
    """How many processes train it together."""
    after: str = ""
    """The run whose last checkpoint it goes on from: a trunk."""
    seen_before: int = 0
    """Samples that the trunk has seen for it."""

    @property
    def file(self) -> Path:
        """Where its configuration is kept."""
        return hidden(self.home) / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.file.with_suffix(".log")

    @property
    def yaml(self) -> str:
        """The configuration's text: ``clipeval-train pretrain`` takes a file of it."""
        return yaml.dump(self.document, Dumper=_WithoutAliases, sort_keys=False)

    @property
    def is_trunk(self) -> bool:
        """Whether it is there for others to go on from, and no point of a study by itself."""
        return Path(self.config.out).parent == hidden(self.home)

    @property
    def expense(self) -> float:
        """GMACs of the samples that it sees itself."""
        return self.architecture.profile.gmacs * (self.config.samples - self.seen_before)


def make(name: str, document: dict[str, Any], home: Path, **more: Any) -> Run:
    """The run of a configuration, with the other fields of ``Run``. Raises UsageError that starts with the key."""
    config = parse_pretrain(document, "")
    return Run(name, document, config, Initial(config).architecture, home, **more)


def hidden(home: Path) -> Path:
    """The folder for everything that is no point of the study."""
    return home / ".ladder"


def state(run: Run) -> str:
    """``finished`` with exactly this configuration, ``started`` or ``new``."""
    newest = checkpoint.newest(Path(run.config.out))
    if newest is None:
        return NEW
    is_last = newest.name == run.config.path(run.config.samples).name
    return FINISHED if is_last and _is_configured(run) else STARTED


def is_training(run: Run) -> bool:
    """Whether a process holds the run's folder now, as far as the file system knows."""
    try:
        with open(Path(run.config.out) / ".lock", "rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_configured(run: Run) -> bool:
    """Whether the file says what the run says. From where a trunk went on changes nothing of it."""
    if not run.file.is_file():
        return False
    text = run.file.read_text("utf-8")
    if not run.is_trunk:
        return text == run.yaml
    said = yaml.safe_load(text)
    return isinstance(said, dict) and said | {"start_from": None} == run.document | {"start_from": None}
