"""The source ``class-prompts``: which classes are seen together, in words (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from genaug.errors import ConfigError, DataError, did_you_mean
from genaug.labels import LabelSpace
from genaug.rng import Rng
from genaug.sources.base import Source
from genaug.types import Mask, Prompt, Sample
from genaug_text2image.config import ClassPromptsOptions
from genaug_text2image.prompt_file import inner_source

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug.sources.survey import Survey

#: How ids begin; the number of the prompt follows.
STEM = "scene_"


@dataclass(frozen=True)
class Scenes:
    """What the masks show.

    Args:
        ids: Of the masks that show a class to name.
        sizes: ``(height, width)`` of each.
        present: bool ``[N, K]``: which of the K classes each shows.
    """

    ids: list[str]
    sizes: list[tuple[int, int]]
    present: NDArray[np.bool_]

    @cached_property
    def together(self) -> NDArray[np.int64]:
        """``[K, K]``: in how many masks both classes are seen; on the diagonal, in how many the class is."""
        present = self.present.astype(np.int64)
        return present.T @ present


class ClassPrompts(Source):
    """Prompts for dense scenes: the classes of one mask, and others that are seen beside them in other masks.

    A mask with fewer classes than the quantile `dense` of all masks gets more, one after the other, each drawn by the
    mean, over the classes so far, of how often it is seen in the masks that show that class. So prompts are as dense
    as the user's densest masks, and name only what occurs together. Prompt number n depends on the masks, the options
    but `count`, and n.

    Args:
        source: Where the masks come from.
        labels: Class table.
        options: How prompts are made; its ``source`` is not looked at.

    Raises:
        ConfigError: `options` speak of a class that the table lacks.
    """

    def __init__(self, source: Source, labels: LabelSpace, options: ClassPromptsOptions | None = None) -> None:
        self.source, self.labels, self.options = source, labels, options or ClassPromptsOptions()
        known = set(labels.names.values())
        named = [("names", name) for name in self.options.names]
        named += [("exclude", name) for name in self.options.exclude if name not in ClassPromptsOptions().exclude]
        for key, name in named:
            if name not in known:
                raise ConfigError(
                    f"no class is called {name!r}", where=f"conditions.{key}", hint=did_you_mean(name, known)
                )
        #: Classes that prompts may name.
        self.classes = [i for i in labels.ids if labels.names[i] not in self.options.exclude]

    @classmethod
    def from_config(cls, options: ClassPromptsOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(inner_source(options, context), context.labels, options)

    def ids(self) -> Sequence[str]:
        """Return ``scene_000000`` and so on; reads the masks unless `count` is given."""
        count = self.options.count or len(self.scenes.ids)
        return [f"{STEM}{number:06d}" for number in range(count)]

    def survey(self) -> Survey:
        """Read the masks once; their problems come first."""
        masks = self.source.survey()
        return masks if masks.problems else super().survey()

    def load(self, sample_id: str) -> Sample:
        """Return one prompt; ``meta`` has the ids of its classes and the id of the mask that it began with."""
        if sample_id not in self._known:
            raise DataError(f"no prompt is called {sample_id!r}", where="conditions", hint=f"Ids begin with {STEM!r}")
        return self.prompt(int(sample_id.removeprefix(STEM)))

    def prompt(self, number: int) -> Sample:
        """Return prompt `number`, however many there are.

        Raises:
            DataError: No mask shows a class that may be named.
        """
        scenes, how = self.scenes, self.options
        start = self._starts[number % len(self._starts)]
        draw = Rng(how.seed).child("class-prompts", number).numpy()
        chosen = densified(scenes.present[start], scenes.together, self._least, draw)
        classes = [self.classes[i] for i in np.flatnonzero(chosen)]
        if how.order == "random":
            classes = [classes[i] for i in draw.permutation(len(classes))]
        template = how.templates[int(draw.integers(len(how.templates)))]
        text = template.replace("{classes}", self.in_words(classes))
        meta = {"classes": classes, "mask": scenes.ids[start]}
        return Sample(f"{STEM}{number:06d}", prompt=Prompt(text, how.size or scenes.sizes[start]), meta=meta)

    def in_words(self, classes: Sequence[int]) -> str:
        """Return the names of some classes as prompts call them, joined."""
        names = [self.labels.names[i] for i in classes]
        words = [self.options.names.get(name, name.replace("_", " ")) for name in names]
        last = self.options.separator if self.options.last_separator is None else self.options.last_separator
        return last.join([self.options.separator.join(words[:-1]), words[-1]] if len(words) > 1 else words)

    # ------------------------------------------------------------------ statistics

    @cached_property
    def scenes(self) -> Scenes:
        """What every mask shows; read once.

        Raises:
            DataError: A mask cannot be read, or none shows a class that may be named.
        """
        ids, sizes, rows = list[str](), list[tuple[int, int]](), list[NDArray[np.bool_]]()
        masks = 0
        for sample in tqdm(self.source, desc="classes of the masks", total=len(self.source), unit="mask", delay=1):
            if sample.mask is None:
                continue
            masks += 1
            row = self._shown(sample.mask)
            if row.any():
                ids.append(sample.id)
                sizes.append(sample.size)
                rows.append(row)
        if not masks:
            hint = "Name their folder in 'source' or 'data', or use prompts of your own ({format: prompts})"
            raise DataError("the samples have no masks to take classes from", where="conditions", hint=hint)
        if not rows:
            raise DataError("no mask shows a class to name", where="conditions", hint="Look at exclude and min_share")
        return Scenes(ids, sizes, np.stack(rows))

    def _shown(self, mask: Mask) -> NDArray[np.bool_]:
        counts = np.bincount(mask.ravel(), minlength=256)
        labelled = mask.size - counts[self.labels.ignore_index]
        shown: NDArray[np.bool_] = counts[self.classes] > self.options.min_share * labelled
        return shown

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.ids())

    @cached_property
    def _least(self) -> int:
        counts = self.scenes.present.sum(1)
        return int(np.quantile(counts, self.options.dense, method="higher"))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Order in which masks begin prompts: all of them once, then again."""
        return Rng(self.options.seed).child("class-prompts").numpy().permutation(len(self.scenes.ids))


def densified(
    present: NDArray[np.bool_], together: NDArray[np.int64], least: int, draw: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which classes a prompt names: those of a mask, and more until there are `least`.

    Args:
        present: bool ``[K]``, at least one class.
        together: ``[K, K]``, see `Scenes`.
        least: Number of classes to reach; fewer where no other class was ever seen beside these.
        draw: Source of the draws.
    """
    chosen = present.copy()
    while chosen.sum() < least:
        beside = (together[chosen] / together[chosen, chosen][:, None]).mean(0)
        beside[chosen] = 0
        if not beside.any():
            break
        chosen[draw.choice(len(chosen), p=beside / beside.sum())] = True
    return chosen
