"""Which rows of a table are meant: comparisons of columns, joined by and, or, not.

Samples of a source to train on (``where:``) and rows of a results table to fit (``--where``) are chosen so. The text is
parsed by Python's own parser and never run: what is no comparison is refused. A name that is none in Python stands
between backticks: ```mix.LAION-2B` > 0.5``.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

_COMPARISONS = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
"""Each with the function of pyarrow.compute."""
_Compiled = Callable[["pyarrow.Table"], Any]
_LONGEST = 1000
_EXAMPLE = "clip_l14_similarity_score > 0.28 and NSFW == 'UNLIKELY'"
_QUOTED = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|`([^`]+)`""")
"""A text, or a name between backticks."""
_STAND_IN = "_backticks_{}_"


@dataclass(frozen=True)
class Condition:
    """A condition on the rows of a table."""

    fields: tuple[str, ...]
    """The columns that it compares."""
    _found: _Compiled

    def holds(self, table: pyarrow.Table) -> np.ndarray:
        """``[rows]`` bool. A comparison with a value that is missing is neither true nor false, as in SQL, so that no
        such row is kept by it. Raises ValueError for values of kinds that cannot be compared."""
        import pyarrow
        import pyarrow.compute as pc

        try:
            found = self._found(table)
        except (pyarrow.ArrowNotImplementedError, pyarrow.ArrowInvalid) as error:
            kinds = ", ".join(f"{name} holds {table.schema.field(name).type}" for name in self.fields)
            raise ValueError(f"cannot compare these kinds of values: {kinds}") from error
        return pc.fill_null(found, False).to_numpy(zero_copy_only=False)


class _Unclear(Exception):
    """A part of a text is not what it should be."""

    def __init__(self, node: ast.expr, expected: str) -> None:
        super().__init__(expected)
        self.node = node


def condition(text: str, example: str = _EXAMPLE) -> Condition:
    """Parse a condition. Raises ValueError that says what is not understood, and shows an ``example``."""
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        return match[1] or quoted.setdefault(match[2], _STAND_IN.format(len(quoted)))

    plain = _QUOTED.sub(stand_in, text).strip() if len(text) <= _LONGEST else text
    names: dict[str, None] = {}
    try:
        found = _compiled(_parsed(plain, example), _Names(names, {word: name for name, word in quoted.items()}))
    except _Unclear as error:
        part = ast.get_source_segment(plain, error.node) or text
        for name, word in quoted.items():
            part = part.replace(word, f"`{name}`")
        raise ValueError(f"'{part:.80}' is no {error}; write a condition like {example}") from None
    if not names:
        raise ValueError(f"it compares no field; write one like {example}")
    return Condition(tuple(names), found)


@dataclass(frozen=True)
class _Names:
    """The columns that were met, in order, and which of them a word of the text stands for."""

    met: dict[str, None]
    quoted: dict[str, str]

    def column(self, word: str) -> str:
        name = self.quoted.get(word, word)
        self.met[name] = None
        return name


def _parsed(text: str, example: str) -> ast.expr:
    try:
        if len(text) > _LONGEST:
            raise ValueError("too long")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd spellings, which are refused or harmless
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or "too deeply nested"
        raise ValueError(f"not a condition ({reason}); write one like {example}") from error


def _compiled(node: ast.expr, names: _Names) -> _Compiled:
    """True, false or null per row of a table, of one of the few forms that a condition has; its fields go into
    ``names``. Raises _Unclear for what has another."""
    if isinstance(node, ast.BoolOp):
        parts = [_compiled(part, names) for part in node.values]
        join = "and_kleene" if isinstance(node.op, ast.And) else "or_kleene"
        return lambda table: reduce(partial(_call, join), [part(table) for part in parts])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        operand = _compiled(node.operand, names)
        return lambda table: _call("invert", operand(table))
    if not (isinstance(node, ast.Compare) and all(type(operator) in _COMPARISONS for operator in node.ops)):
        raise _Unclear(node, "comparison by == != < <= > >=")
    sides = [_side(side, names) for side in (node.left, *node.comparators)]
    pairs = [(_COMPARISONS[type(op)], *two) for op, two in zip(node.ops, pairwise(sides), strict=True)]
    return lambda table: reduce(
        partial(_call, "and_kleene"), [_call(name, left(table), right(table)) for name, left, right in pairs]
    )


def _call(name: str, *values: Any) -> Any:
    import pyarrow.compute as pc

    return pc.call_function(name, list(values))


def _side(node: ast.expr, names: _Names) -> _Compiled:
    import pyarrow

    word, value = _name(node), _constant(node)
    if word is None and not isinstance(value, str | int | float):
        raise _Unclear(node, "field, number or text")
    if word is None:
        return lambda table: pyarrow.scalar(value)
    name = names.column(word)

    def column(table: pyarrow.Table) -> Any:
        found = table[name]
        return found.cast(found.type.value_type) if pyarrow.types.is_dictionary(found.type) else found

    return column


def _name(node: ast.expr) -> str | None:
    """``field`` or ``outer.inner``; None for what is no name."""
    if isinstance(node, ast.Attribute):
        outer = _name(node.value)
        return None if outer is None else f"{outer}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def _constant(node: ast.expr) -> Any:
    """The value of a number or text; None for what is none."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = node.operand.value if isinstance(node.operand, ast.Constant) else None
        if not isinstance(value, int | float):
            return None
        return -value if isinstance(node.op, ast.USub) else value
    value = node.value if isinstance(node, ast.Constant) else None
    return float(value) if isinstance(value, int) and abs(value) >= 2**63 else value
