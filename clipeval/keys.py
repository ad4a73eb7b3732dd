"""What a configuration file may say: its keys for people, and a JSON Schema for editors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from clipeval.console import show
from clipeval.drawing import Column
from clipeval.explained import user_keys
from clipeval.tables import Sheet
from clipeval.yaml_file import shown

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", Any: "anything"}


def rows(model: type[BaseModel]) -> list[dict[str, str]]:
    """Each key with its type, default and meaning, in words; keys inside of others with theirs in front. Of values with
    the same keys as others only those others' are listed."""
    return list(_rows(model, "", {}))


def _rows(model: type[BaseModel], above: str, listed: dict[type[BaseModel], str]) -> Iterator[dict[str, str]]:
    for key in user_keys(model):
        field, name = model.model_fields[key], above + key
        inside = list(_inside(field.annotation, name))
        told = [_told(field), *(f"Keys as those of {listed[one]}." for one, _ in inside if one in listed)]
        meaning = " ".join(filter(None, told))
        yield {"name": name, "type": _type(field.annotation), "default": _default(field), "meaning": meaning}
        for one, place in inside:
            if one not in listed:
                listed[one] = place
                yield from _rows(one, f"{place}.", listed)


def print_rows(found: Sequence[Mapping[str, str]]) -> None:
    """Keys on the terminal."""
    sheet = Sheet("", Column("key", "name"), Column("type"), Column("default"), Column("meaning", "prose"))
    for row in found:
        sheet.add(row["name"], row["type"], row["default"], row["meaning"])
    sheet.print()
    show(f"{len(found)} keys")


def schema(model: type[BaseModel], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON Schema of a file; keys that are ``optional`` need not be there, as something else gives them."""
    found = model.model_json_schema()
    hidden = set(model.model_fields) - set(user_keys(model))
    found["properties"] = {key: value for key, value in found["properties"].items() if key not in hidden}
    if required := [key for key in found.get("required", ()) if key not in optional]:
        found["required"] = required
    else:
        found.pop("required", None)
    return {"$schema": DRAFT} | found


def _told(field: FieldInfo) -> str:
    """The doc string of a field as text of a file: without marks of code, and null for None."""
    plain = " ".join((field.description or "").replace("``", "").split())
    return re.sub(r"\bNone\b", "null", plain)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if isinstance(value, str) else "{}" if value == {} else "" if value is None else shown(value)


def _type(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return " | ".join(map(str, inside))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in inside if one is not NoneType))
    if origin in (tuple, list):
        each = [_type(one) for one in inside if one is not Ellipsis]
        return f"list of {each[0]}" if Ellipsis in inside or origin is list else f"[{', '.join(each)}]"
    if origin is dict:
        return f"mapping of names to {_type(inside[1])}" if inside[1] is not Any else "mapping"
    return _WORDS.get(annotation, "mapping")


def _inside(annotation: Any, way: str) -> Iterator[tuple[type[BaseModel], str]]:
    """The models that a value holds, each with the way to it from the key: ``[0]`` in lists, ``.NAME`` in mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, way
        return
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _inside(inside[0], way)
    elif origin in (Union, UnionType):
        for one in inside:
            yield from _inside(one, way)
    elif origin in (tuple, list) and inside:
        yield from _inside(inside[0], f"{way}[]")
    elif origin is dict:
        yield from _inside(inside[1], f"{way}.NAME")
