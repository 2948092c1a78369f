"""Whether the components of a recipe fit its data and one another: told before anything heavy starts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from genaug.config import Options
from genaug.errors import ConfigError
from genaug.recipe import Recipe, check_options

if TYPE_CHECKING:
    from genaug.interfaces import Filter
    from genaug.sources.base import Source
    from genaug.types import SamplePart


def misfits(recipe: Recipe, *, data: Source | None, conditions: Source | None) -> list[str]:
    """Return what does not fit, one sentence or two each, by what the components' options say of themselves.

    Imports no component and nothing heavy; reads at most one sample of a source.

    Args:
        recipe: The recipe.
        data: Its labelled samples, free of problems; None if there are none to look at.
        conditions: What it makes images for, likewise.
    """
    options = _options(recipe)
    if "generator" not in options:
        return []
    asked, found = None if conditions is None else conditions.parts(), list[str]()
    if asked is not None:
        found += _lacking("generator", "conditions", asked, options["generator"].condition_needs)
    given = None if data is None else data.parts()
    for where, component in options.items():
        if given is not None:
            found += _lacking(where, "labelled samples", given, component.data_needs)
    unlabeled = _unlabeled(options["generator"], asked)
    return found + [str(_refused(w)) for w, o in options.items() if unlabeled and o.judges_unlabeled is False]


def require_fit(recipe: Recipe, *, data: Source, conditions: Source | None) -> None:
    """Raise `ConfigError`, with everything that `misfits` finds."""
    found = misfits(recipe, data=data, conditions=conditions)
    if len(found) == 1:
        raise ConfigError(found[0])
    if found:
        raise ConfigError(f"{len(found)} parts do not fit:" + "".join(f"\n  - {problem}" for problem in found))


def require_judges(recipe: Recipe, filters: Sequence[tuple[str, Filter]], *, conditions: Source) -> None:
    """Raise `ConfigError` for a built filter that cannot judge what will be made; its options need not say so."""
    options = _options(recipe)
    if "generator" in options and _unlabeled(options["generator"], conditions.parts()):
        for number, (_, judge) in enumerate(filters):
            if not judge.judges_unlabeled:
                raise _refused(f"filters.{number}")


def _options(recipe: Recipe) -> dict[str, Options]:
    """Return the options of generator and filters by their keys; those of a component without any say nothing."""
    config = recipe.config
    parts = [("generator", "generator", config.generator)] if config.generator is not None else []
    parts += [("filter", f"filters.{number}", part) for number, part in enumerate(config.filters)]
    found = {}
    for kind, where, part in parts:
        _, options = check_options(recipe.registry, kind, part.use, part.options, where=where)
        found[where] = options if isinstance(options, Options) else Options()
    return found


def _unlabeled(generator: Options, asked: Collection[SamplePart] | None) -> bool:
    return asked is not None and "mask" not in asked and not generator.makes_masks


def _refused(where: str) -> ConfigError:
    return ConfigError(
        "the filter judges by masks, which the samples will not have, since their conditions have none",
        where=where,
        allowed="filters that judge by the image alone",
        hint="Leave it out",
    )


def _lacking(where: str, what: str, parts: Collection[SamplePart], needs: Mapping[SamplePart, str]) -> Iterator[str]:
    missing = [part for part in needs if part not in parts]
    if missing:
        found = f"the {what} have no {' and no '.join(f'{part}s' for part in missing)}"
        allowed = f"{what} with {' and '.join(f'{part}s' for part in needs)}"
        yield str(ConfigError(found, where=where, allowed=allowed, hint=needs[missing[0]] or None))
