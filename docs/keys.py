"""The keys of YAML files as Markdown tables, read off the pydantic models that validate them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

Model = type[BaseModel]
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}


def tables(root: Model, title: str) -> str:
    """A section per model, ``root``'s first: each key with its type, default and meaning."""
    return "\n\n".join(_section(model, title if model is root else _title(model)) for model in _reached(root))


def names(root: Model) -> set[str]:
    """Every key of ``root`` and of what it holds."""
    return {name for model in _reached(root) for name, _ in _fields(model)}


def _reached(root: Model) -> list[Model]:
    found = [root]
    for model in found:
        for _, field in _fields(model):
            found += [inner for inner in _models(field.annotation) if inner not in found]
    return found


def _models(annotation: Any) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _fields(model: Model) -> list[tuple[str, FieldInfo]]:
    return [(name, field) for name, field in model.model_fields.items() if not field.exclude]


def _title(model: Model) -> str:
    words = re.findall(r"[A-Z][a-z]*", model.__name__.removesuffix("Entry"))
    return " ".join(words).capitalize()


def _section(model: Model, title: str) -> str:
    said = _said(model)
    rows = [
        f"| `{name}` | {_shape(field.annotation)} | {_default(field)} | {_cell(said.get(name, ''))} |"
        for name, field in _fields(model)
    ]
    about = _prose(inspect.getdoc(model) or "")
    return "\n".join([f"## {title}", "", about, "", "| key | value | left out | |", "|---|---|---|---|", *rows])


def _said(model: Model) -> dict[str, str]:
    """The docstring under each field, also those of the classes it comes from."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            [tree] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
            for line, below in zip(tree.body, tree.body[1:], strict=False):
                match line, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = text
    return found


def _shape(annotation: Any) -> str:
    """What a value looks like, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_shape(part) for part in parts if part is not types.NoneType))
    if origin is tuple:
        inner = [_shape(part) for part in parts if part is not ...]
        return f"list of: {inner[0]}" if ... in parts else f"[{', '.join(inner)}]"
    if origin is dict and parts[1] is Any:
        return "mapping"
    if origin is dict:
        return f"name: {_shape(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{_title(annotation).lower()}](#{_title(annotation).lower().replace(' ', '-')})"
    return _PLAIN.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel) or value in ((), {}, ""):
        return ""
    shown = list(value) if isinstance(value, tuple) else value
    return f"`{str(shown).lower() if isinstance(value, bool) else shown}`"


def _prose(text: str) -> str:
    """A docstring as Markdown."""
    return text.replace("``", "`")


def _cell(text: str) -> str:
    said = " ".join(_prose(text).split()).replace("|", "\\|")
    return said.replace(". None: ", ". Left out: ").replace("None: ", "left out: ")
