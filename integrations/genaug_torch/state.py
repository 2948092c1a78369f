"""What comes back from a checkpoint, checked before anything of it is used."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from genaug.errors import ConfigError

#: Entries of `SemiSupervisedStep.state_dict`.
REQUIRED = ("teacher", "calls", "updates")
#: Not in checkpoints of before it existed.
OPTIONAL = ("recipe", "batch")
HINT = "Pass what SemiSupervisedStep.state_dict() returned; the student and the optimizer have states of their own"
#: Names that a message lists before it counts.
LISTED = 3


def counters(state: Mapping[str, Any], recipe: str) -> tuple[int, int]:
    """Return the calls and updates of a step's state, after a look at all of it but the teacher.

    Args:
        state: What a checkpoint holds.
        recipe: Name of the recipe that is to go on.

    Raises:
        ConfigError: Entries are missing, unknown or of another kind, or the recipe is another one.
    """
    where, allowed = "SemiSupervisedStep state", ", ".join((*REQUIRED, *OPTIONAL))
    if not isinstance(state, Mapping):
        raise ConfigError(f"a {type(state).__name__}", where=where, allowed=f"a dictionary of {allowed}", hint=HINT)
    missing = [name for name in REQUIRED if name not in state]
    unknown = [str(name) for name in state if name not in (*REQUIRED, *OPTIONAL)]
    if missing or unknown:
        raise ConfigError(_entries(missing, unknown), where=where, allowed=allowed, hint=HINT)
    if state.get("recipe", recipe) != recipe:
        raise ConfigError(
            f"{state['recipe']!r}, but this step runs {recipe!r}",
            where="recipe",
            allowed="the recipe that the state was taken with",
            hint="To begin with its teacher only: step.teacher.load_state_dict(state['teacher'])",
        )
    return _counter(state, "calls"), _counter(state, "updates")


def _counter(state: Mapping[str, Any], name: str) -> int:
    try:
        value = operator.index(state[name])
    except TypeError:
        value = -1
    if value < 0:
        raise ConfigError(f"{state[name]!r}", where=name, allowed="a whole number from 0", hint=HINT)
    return value


def differences(expected: Mapping[str, Any], found: object) -> str:
    """Return in words what distinguishes a state of weights from the expected one; empty if nothing seems to."""
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    told = _entries([name for name in expected if name not in found], [str(x) for x in found if x not in expected])
    shapes = [
        f"{name} of shape {_shape(found[name])} instead of {_shape(value)}"
        for name, value in expected.items()
        if name in found and _shape(found[name]) != _shape(value)
    ]
    return "; ".join(part for part in (told, _some(shapes)) if part)


def _entries(missing: Sequence[str], unknown: Sequence[str]) -> str:
    named = (("no", missing), ("unknown", unknown))
    return "; ".join(f"{what} {_some(names)}" for what, names in named if names)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
