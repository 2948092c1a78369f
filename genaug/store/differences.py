"""Which keys of two recipes differ, for messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return ``{dotted key: plain value}`` of nested tables and lists."""
    items: list[tuple[str, Any]]
    if isinstance(value, Mapping):
        items = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(i), v) for i, v in enumerate(value)]
    else:
        return {prefix: value}
    result: dict[str, Any] = {}
    for key, inner in items:
        result.update(flatten(inner, f"{prefix}.{key}" if prefix else key))
    return result


def differing_keys(old: Any, new: Any, *, limit: int = 6) -> str:
    """Return ``'generator.steps is 20, was 50; ...'`` for the first `limit` keys that differ; '' if none does."""
    before, after = flatten(old), flatten(new)
    keys = [k for k in sorted({*before, *after}) if before.get(k, ...) != after.get(k, ...)]
    parts = []
    for key in keys[:limit]:
        now = repr(after[key]) if key in after else "absent"
        was = repr(before[key]) if key in before else "absent"
        parts.append(f"{key} is {now}, was {was}")
    if len(keys) > limit:
        parts.append(f"and {len(keys) - limit} more")
    return "; ".join(parts)
