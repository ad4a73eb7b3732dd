"""YAML read safely: no aliases, no key twice, no number that takes long, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import yaml

from clipeval.errors import UsageError

_YAML_LIMIT = 8 << 20
"""Characters of a configuration. YAML takes a second for some hundred thousand."""
_NUMBER_LIMIT = 100
"""Characters of a number. Longer ones take long to read, and Python refuses to print them."""
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, ValueError)  # what PyYAML lets through of wrong scalars


class Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which make a small file expand to gigabytes, and without a key that is there twice, of
    which one would be dropped."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases (*name) are not supported here", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _UNREADABLE:
            self._refuse(f"'{node.value!s:.80}' is not of the type {node.tag.rpartition(':')[2]}", node.start_mark)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    self._refuse(f"the key '{key.value:.80}' is there twice", key.start_mark)
                seen.add((key.tag, key.value))
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        for (key, _), value in zip(node.value, found, strict=False):
            if not isinstance(value, str):
                written = f"'{key.value!s:.80}'" if isinstance(key, yaml.ScalarNode) else "one that is no text"
                self._refuse(f"the key {written} is read as {shown(value)}: write it in quotes", key.start_mark)
        return found

    def construct_number(self, node: Any) -> int | float:
        """A number of a length that a number has."""
        if len(node.value) > _NUMBER_LIMIT:
            self._refuse(f"a number of {len(node.value):,} characters", node.start_mark)
        is_whole = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)

    def _refuse(self, problem: str, mark: Any) -> NoReturn:
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


for _tag in ("int", "float"):
    Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", Loader.construct_number)


def read_yaml(path: Path) -> Any:
    """A YAML file's value, read safely. Raises UsageError that names the file, line and column."""
    try:
        with path.open("rb") as file:
            text = file.read(4 * _YAML_LIMIT + 1).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{path}: cannot read the configuration: {reason}. Give a YAML file.") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """The value of YAML text, read safely. ``origin`` names it in the UsageError raised for invalid text."""
    if len(text) > _YAML_LIMIT:
        raise UsageError(f"{origin}: not a configuration: more than {_YAML_LIMIT:,} characters. Give a YAML file.")
    try:
        return yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
        reason = getattr(error, "problem", None) or str(error) or "nested too deeply"
        raise UsageError(f"{where}: not valid YAML: {reason}.") from error


def shown(value: Any) -> str:
    """A value in YAML's words."""
    words = {True: "true", False: "false", None: "nothing"}
    return words[value] if value is None or isinstance(value, bool) else f"{value!r:.80}"
