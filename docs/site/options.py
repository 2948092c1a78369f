"""Options of a pydantic model as a Markdown table: name, type, default, range, meaning."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

HEAD = "| option | type | default | range | meaning |\n|---|---|---|---|---|\n"
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "anything"}


def escaped(text: str) -> str:
    """Return plain text as Markdown that shows it unchanged, within one cell of a table."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.replace("``", "`").split()))
    plain = (re.sub(r"([\\*_<>|\[\]$#])", r"\\\1", part) for part in parts[::2])
    code = (part.replace("|", "\\|") for part in [*parts[1::2], ""])
    return "".join(piece for pair in zip(plain, code, strict=True) for piece in pair)


def table(model: type[BaseModel]) -> str:
    """Return the table of a model's options; those of a nested model by their dotted names."""
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows(model))


def rows(model: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None) -> Iterator[tuple[str, ...]]:
    """Yield the cells of every option of a model.

    Args:
        model: Whose options.
        prefix: What stands before their names: the option that holds the model, and a dot.
        defaults: Values that the option holding the model has by default; they win over the model's own.
    """
    for name, field in model.model_fields.items():
        nested = _nested(field)
        if nested is not None:
            inner = field.get_default(call_default_factory=True) if not field.is_required() else None
            yield from rows(nested, f"{prefix}{name}.", inner if isinstance(inner, BaseModel) else None)
        else:
            default = _default(field) if defaults is None else written(getattr(defaults, name))
            limits = ", ".join(_limits(field.metadata)) or " "
            yield f"`{prefix}{name}`", kind(field.annotation), default, limits, escaped(field.description or "")


def _nested(field: FieldInfo) -> type[BaseModel] | None:
    found = field.annotation
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else written(field.get_default(call_default_factory=True))


def written(value: Any) -> str:
    """Return a default as recipes write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    if isinstance(value, Mapping):
        return "`{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}`"
    if isinstance(value, Sequence | frozenset):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{value}`"


def kind(annotation: Any) -> str:
    """Return what a value may be, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(kind(part) for part in inner if part is not type(None))
    if origin is Annotated:
        limits = ", ".join(_limits(inner[1:]))
        return kind(inner[0]) + (f" ({limits})" if limits else "")
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"list of {len(inner)}: " + ", ".join(map(kind, inner))
    if origin in (tuple, list, set, frozenset, Sequence):
        return f"list of {kind(inner[0])}"
    if annotation is dict or origin in (dict, Mapping):
        return f"table of {kind(inner[0])} to {kind(inner[1])}" if inner else "table"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    raise TypeError(f"no words for the type {annotation!r} of an option")


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    """Yield the limits in a field's metadata; a validator written as code says its own in the option's meaning."""
    signs = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
    for item in metadata:
        if type(item) in signs:
            attribute, sign = signs[type(item)]
            value = getattr(item, attribute)
            yield f"{sign} 2^63" if value == 2**63 else f"{sign} {value}"
        elif isinstance(item, MinLen):
            yield f"at least {item.min_length} long"
        elif isinstance(item, MaxLen):
            yield f"at most {item.max_length} long"
        elif getattr(item, "pattern", None):
            yield "`" + item.pattern.replace("|", "\\|") + "`"
