"""Which rule decides what for a cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from clipeval.config import Config, RuleEntry
from clipeval.errors import UsageError, suggest
from clipeval.tasks import TASKS

TERMS = ("min", "max_drop", "tolerance", "alpha", "complete", "same_version", "on_trend")
"""The keys of a rule that demand something; the others say where."""
_GLOB = set("*?[")


class Rules:
    """The rules of a configuration, in its order."""

    def __init__(self, config: Config) -> None:
        """Raises UsageError for a rule about a suite that does not exist."""
        self._rules: Sequence[RuleEntry] = config.rules
        self._suites: Mapping[str, tuple[str, ...]] = {name: config.members(name) for name in config.suites}
        self._met: set[int] = set()
        self._known: dict[tuple[str, str, str], RuleEntry] = {}
        for number, rule in enumerate(self._rules):
            if rule.suite and not _GLOB & set(rule.suite) and rule.suite not in self._suites:
                where = f"{config.path}: rules[{number}].suite"
                raise UsageError(f"{where}: '{rule.suite}' is not a suite.{suggest(rule.suite, self._suites)}")

    def terms(self, dataset: str, task: str, metric: str) -> RuleEntry:
        """What is demanded of a cell: each key as the first rule that matches and has it says, else its default."""
        cell = dataset, task, metric
        if cell not in self._known:  # of thousands of checkpoints each
            self._known[cell] = self._terms(*cell)
        return self._known[cell]

    def _terms(self, dataset: str, task: str, metric: str) -> RuleEntry:
        said: dict[str, object] = {}
        for number, rule in enumerate(self._rules):
            if self._matches(rule, dataset, task, metric):
                self._met.add(number)
                said = {name: getattr(rule, name) for name in TERMS if name in rule.model_fields_set} | said
        return RuleEntry.model_validate(said)

    def without_a_cell(self) -> Iterator[str]:
        """The rules that matched no cell of those that ``terms`` was asked about."""
        for number, rule in enumerate(self._rules):
            if number not in self._met:
                said = ", ".join(f"{name}: {value}" for name, value in rule.model_dump(exclude_unset=True).items())
                yield f"rules[{number}] ({said}) matches no cell"

    def _matches(self, rule: RuleEntry, dataset: str, task: str, metric: str) -> bool:
        names = (task, TASKS[task].short) if task in TASKS else (task,)
        return (
            fnmatchcase(dataset, rule.dataset)
            and any(fnmatchcase(name, rule.task) for name in names)
            and fnmatchcase(metric, rule.metric)
            and (rule.suite is None or any(dataset in names for names in self._members(rule.suite)))
        )

    def _members(self, glob: str) -> Iterator[tuple[str, ...]]:
        for name, members in self._suites.items():
            if fnmatchcase(name, glob):
                yield (name, *members)
