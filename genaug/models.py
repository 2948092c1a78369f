"""Models that a recipe names: looked for before anything heavy starts, never loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genaug.config import Options
from genaug.errors import ConfigError, GenaugError
from genaug.hub.reference import cached_path, is_reference, local_path
from genaug.labels import LabelSpace
from genaug.recipe import Recipe, check_options, predictor_of
from genaug.registry import Registry

#: Keys of a recipe whose components may need models.
KEYS = ("data", "conditions", "generator", "filters", "labeler", "terms")


@dataclass(slots=True)
class ModelCheck:
    """What options hand to `Options.check_models` to look for their models with.

    Args:
        root: Folder that relative paths of the recipe refer to.
        labels: Class table.
        registry: Where names of shipped models and of predictors are looked up.
        where: Key of the recipe whose component is being looked at.
        problems: One sentence or two per model that cannot be used, beginning with its key.
        notes: What was not checked, likewise.
    """

    root: Path
    labels: LabelSpace
    registry: Registry
    where: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def at(self, where: str) -> ModelCheck:
        """Return one for another component that adds to the same problems and notes."""
        return replace(self, where=where)

    def path(self, value: str) -> Path:
        """Resolve a path of the recipe: relative to `root`, ``~`` is the home folder, ``hf-hub:`` is fetched."""
        return local_path(value, self.root)

    def problem(self, key: str, found: str, *, allowed: str | None = None, hint: str | None = None) -> None:
        """Report that the model named by option `key` cannot be used; arguments as of `GenaugError`."""
        self.problems.append(str(ConfigError(found, where=f"{self.where}.{key}", allowed=allowed, hint=hint)))

    def note(self, key: str, text: str) -> None:
        """Report what cannot be checked of the model named by option `key`; no full stop."""
        self.notes.append(f"{self.where}.{key}: {text}")

    @contextmanager
    def reporting(self, key: str) -> Iterator[None]:
        """Turn an error of genaug inside the block into a problem of option `key`."""
        try:
            yield
        except GenaugError as error:
            self.problems.append(f"{self.where}.{key}: {error}")

    def folder(self, key: str, value: str, files: Sequence[str], *, allowed: str) -> Path | None:
        """Look for a folder and files in it.

        Args:
            key: Option that names it.
            value: Its value, a path of the recipe.
            files: Names of files that the folder must hold.
            allowed: What would do.

        Returns:
            The folder; None, and a problem more, if it or a file is missing. Of what lies on the Hub only a copy that
            is here is looked at; without one there is None and a note.
        """
        if self.elsewhere(key, value):
            return None
        folder = cached_path(value) or self.path(value)
        missing = [name for name in files if not (folder / name).is_file()]
        if not folder.is_dir():
            self.problem(key, f"{folder} {'is no folder' if folder.exists() else 'does not exist'}", allowed=allowed)
        elif missing:
            self.problem(key, f"{folder} has no {' and no '.join(missing)}", allowed=allowed)
        else:
            return folder
        return None

    def elsewhere(self, key: str, value: str) -> bool:
        """Return True, and note it, if option `key` names something on the Hub of which there is no copy here yet."""
        with self.reporting(key):
            if not is_reference(value) or cached_path(value) is not None:
                return False
            self.note(key, f"{value!r} is on the Hub and not fetched yet, so it is not checked")
        return True

    def table(self, key: str, path: Path) -> dict[str, Any] | None:
        """Return the JSON table in a file; None, and a problem more, if there is none."""
        try:
            data = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            self.problem(key, f"{path} cannot be read: {error}")
            return None
        if not isinstance(data, dict):
            self.problem(key, f"{path} holds a {type(data).__name__}", allowed="a JSON table")
            return None
        return data

    def predictor(self, key: str, spec: str | Mapping[str, Any]) -> None:
        """Look for the models of what `BuildContext.predictor` would build from `spec`."""
        where = f"{self.where}.{key}"
        if isinstance(spec, str) and self.elsewhere(key, spec):
            return
        try:
            if isinstance(spec, str):
                spec = {"use": predictor_of(self.path(spec), where), "path": spec}
            options = {k: v for k, v in spec.items() if k != "use"}
            _, model = check_options(self.registry, "predictor", str(spec["use"]), options, where=where)
        except GenaugError as error:
            self.problems.append(str(error))
            return
        if isinstance(model, Options):
            model.check_models(self.at(where))


def check_models(recipe: Recipe, keys: Sequence[str] = KEYS) -> ModelCheck:
    """Look for every model that components of a recipe need; imports nothing heavy and loads none.

    Args:
        recipe: The recipe.
        keys: Those of `KEYS` whose components are looked at.
    """
    look = ModelCheck(recipe.root, recipe.labels, recipe.registry)
    for kind, use, options, where in _components(recipe, keys):
        _, model = check_options(recipe.registry, kind, use, options, where=where)
        if isinstance(model, Options):
            model.check_models(look.at(where))
    return look


def require_models(recipe: Recipe, keys: Sequence[str]) -> None:
    """Raise `ConfigError`, with all problems, if a model that a recipe's components need cannot be used."""
    problems = check_models(recipe, keys).problems
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError(f"{len(problems)} models cannot be used:" + "".join(f"\n  - {p}" for p in problems))


def _components(recipe: Recipe, keys: Sequence[str]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Yield ``(kind, name, options, key of the recipe)``."""
    config = recipe.config
    for key in ("data", "conditions"):
        if key in keys and (source := getattr(config, key)) is not None:
            yield "source", source.format, source.options, key
    parts = [("generator", "generator", config.generator), ("labeler", "labeler", config.labeler)]
    parts += [("filters", f"filters.{i}", part) for i, part in enumerate(config.filters)]
    parts += [("terms", f"terms.{i}.mixer", term.mixer) for i, term in enumerate(config.terms)]
    kinds = {"filters": "filter", "terms": "mixer"}
    for key, where, part in parts:
        if key in keys and part is not None:
            yield kinds.get(key, key), part.use, part.options, where
