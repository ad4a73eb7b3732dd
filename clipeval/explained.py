"""What is wrong with a configuration, in the words of its file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from clipeval.errors import suggest
from clipeval.yaml_file import shown


def user_keys(model: type[BaseModel]) -> list[str]:
    """The keys that a file may have."""
    return [name for name, field in model.model_fields.items() if not field.exclude]


def explain(error: ValidationError, path: str, model: type[BaseModel]) -> str:
    """The first problem of a validation error of a ``model``: where in the file, what is wrong, what would be right."""
    problems = error.errors(include_url=False)
    # A union of "string or mapping" reports both failures; the deeper one is about what the user wrote.
    problem = max(problems, key=lambda item: (item["type"] == "extra_forbidden", len(item["loc"])))
    location = [part for part in problem["loc"] if not (isinstance(part, str) and part in {"str", "ModelEntry"})]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part:.200}" for part in location).lstrip(".")
    if problem["type"] == "extra_forbidden":
        keys = user_keys(_model_at(model, location[:-1]))
        return f"{path}: {where}: unknown key.{suggest(str(location[-1]), keys)} Keys here: {', '.join(keys)}."
    if problem["type"] == "missing":
        return f"{path}: {where}: this {'entry' if isinstance(location[-1], int) else 'key'} is required."
    return f"{path}: {where}: {_reason(problem, model, location)} (found {shown(problem['input'])})."


def _model_at(model: type[BaseModel], location: Sequence[Any]) -> type[BaseModel]:
    """The model that describes a place in the document of a ``model``, such as ``["models", 3]``."""
    for key in location:
        if key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in a type: of ``tuple[Entry, ...] | None`` it is ``Entry``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


_KINDS = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
}
"""What is expected of a value of another kind, in YAML's words."""


def _reason(problem: Any, model: type[BaseModel], location: list[Any]) -> str:
    kind = _KINDS.get(problem["type"])
    if kind is None:
        reason: str = problem["msg"].replace("Tuple", "The list").replace(" after validation", "")
        reason = reason.removeprefix("Value error, ")
        return reason[0].lower() + reason[1:]
    if problem["type"] == "model_type":
        kind += f" with the keys {', '.join(user_keys(_model_at(model, location)))}"
    if kind == "a list" and isinstance(problem["input"], str):
        kind += f": [{problem['input']:.80}]"
    return f"expected {kind}"
