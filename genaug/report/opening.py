"""Finds out what somebody names as a set of images: a store, a recipe, a folder of images, with or without masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genaug.errors import ConfigError, DataError
from genaug.labels import LabelSpace
from genaug.recipe import Recipe, folder_or_recipe, load_recipe
from genaug.registry import Registry
from genaug.report.sample_sets import SampleSet, SourceSet, StoreSet
from genaug.sources.config import FolderOptions
from genaug.sources.discover import find_pairs
from genaug.sources.folder import FolderSource
from genaug.store.files import DATASET, MANIFEST
from genaug.store.store import SampleStore

#: Where images lie in a folder that has no masks.
_IMAGES = ("", "images", "imgs", "JPEGImages")


@dataclass(frozen=True, slots=True)
class Place:
    """A set that can be opened.

    Args:
        path: The store or the folder; of a recipe the folder that its paths refer to.
        kind: What lies there.
        recipe: The recipe, where one was named.
        options: How the folder's files pair up.
        labels: The class table it brings along, None for a folder.
    """

    path: Path
    kind: Literal["store", "source", "folder"]
    recipe: Recipe | None = None
    options: FolderOptions | None = None
    labels: LabelSpace | None = None

    @property
    def has_masks(self) -> bool:
        """False for a folder of images alone."""
        return self.options is None or self.options.masks is not None

    def open(
        self, labels: LabelSpace, *, kept: bool = False, limit: int | None = None, by: str | None = None
    ) -> SampleSet:
        """Open it.

        Args:
            labels: Class table that masks are checked against.
            kept: Of a store, only what every filter keeps.
            limit: At most so many samples, evenly spread.
            by: Which samples belong together, see `SampleSet`.

        Raises:
            ConfigError: `by` is no regular expression.
        """
        if self.kind == "store":
            return StoreSet(self.path, kept=kept, limit=limit, by=by)
        if self.recipe is not None:
            return SourceSet(self.recipe.source(), limit=limit, by=by)
        assert self.options is not None
        return SourceSet(FolderSource(self.options, labels, root=Path()), limit=limit, by=by)


def find_place(value: str | Path | Mapping[str, Any], registry: Registry | None = None, *, generated: bool) -> Place:
    """Return what `value` names.

    Args:
        value: A store, a folder of images and perhaps masks, a recipe file or the name of a ready recipe.
        registry: For recipes.
        generated: Whether a recipe stands for what it generates rather than for its labelled data.

    Raises:
        ConfigError, DataError, StoreError: There is no such thing.
    """
    if isinstance(value, Mapping) or folder_or_recipe(value, registry) is None:
        recipe = load_recipe(value, registry=registry)
        if generated:
            return Place(recipe.output, "store", labels=SampleStore.open(recipe.output).labels)
        return Place(recipe.root, "source", recipe, labels=recipe.labels)
    path = Path(value)
    if (path / DATASET).is_file() and (path / MANIFEST).is_file():
        return Place(path, "store", labels=SampleStore.open(path).labels)
    return Place(path, "folder", options=_folder_options(path))


def _folder_options(path: Path) -> FolderOptions:
    try:
        pairing = find_pairs(path)[0]
    except DataError:
        return _images_alone(path)
    return FolderOptions(
        images=str(pairing.images),
        masks=str(pairing.masks),
        mask_suffix=pairing.mask_suffix,
        recursive=pairing.recursive,
        **({} if pairing.image_suffixes is None else {"image_suffixes": pairing.image_suffixes}),
    )


def _images_alone(path: Path) -> FolderOptions:
    endings = FolderOptions.model_fields["image_suffixes"].default
    for name in _IMAGES:
        folder = path / name
        if folder.is_dir() and any(p.suffix.lower() in endings for p in folder.iterdir()):
            return FolderOptions(images=str(folder))
    raise DataError("holds neither a store nor images", where=str(path), hint="Name a store, a recipe, or a folder")


def agree(first: LabelSpace | None, second: LabelSpace | None) -> LabelSpace | None:
    """Return the class table of two sets, as far as either brings one along.

    Raises:
        ConfigError: Their ids differ.
    """
    if first is not None and second is not None and (first.ids, first.ignore_index) != (
        second.ids, second.ignore_index,
    ):  # fmt: skip
        raise ConfigError(
            f"the sets have other classes: ids {list(first.ids)} and {list(second.ids)}",
            where="labels",
            hint="Compare a store with the data of its own recipe",
        )
    return first or second
