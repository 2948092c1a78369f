"""Unlabelled images from anywhere, and batches that take a fixed number of them from each of several streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from genaug.batch import image_tensor
from genaug.config import SourceConfig, validate
from genaug.errors import ConfigError, DataError, SampleError
from genaug.hub.reference import local_path
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.registry import default_registry
from genaug.rng import Rng
from genaug.sources.base import Source
from genaug.store import SampleStore
from genaug.store.files import DATASET
from genaug.store.views import TrainingView
from genaug.types import Sample
from genaug_torch.epochs import SharedEpoch, hand_on
from genaug_torch.mixed_dataset import MapStyle, evenly


class UnlabeledImages(Dataset[Any]):
    """Images as a map-style dataset, read from disk one at a time; masks, if there are any, are left out.

    Items are float32 ``[3, H, W]`` in ``[0, 1]``, or what a `transform` makes of the `genaug.Sample`: for instance a
    crop, where sizes differ, or a pair of weak and strong views.

    Args:
        images: A `genaug.SampleStore`, its folder or ``hf-hub:`` name (the samples that every filter keeps); a
            folder of images; a `Source`; or a source by configuration, as under ``data`` in a recipe, for instance
            ``{"format": "text-list", "root": "data", "list": "unlabeled.txt", "masks": "unused"}`` for the lists of
            UniMatch and SENSE.
        transform: Makes an item of a sample; runs in the worker.

    Attributes:
        ids: Name of every item: sample ids, or keys of the store.

    Raises:
        ConfigError: `images` is none of these.
        DataError: There are no images.
    """

    def __init__(
        self,
        images: SampleStore | Source | Mapping[str, Any] | str | Path,
        *,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        self.transform = transform
        if isinstance(images, str | Path):
            folder = local_path(images)
            images = SampleStore.open(folder) if (folder / DATASET).exists() else {"images": str(folder)}
        if isinstance(images, Mapping):
            images = _source(images)
        if isinstance(images, SampleStore):
            self._images: TrainingView | Source = images.training_view()
            self.ids: tuple[str, ...] = self._images.keys
        elif isinstance(images, Source):
            self._images, self.ids = images, tuple(images.ids())
        else:
            allowed = "a store, a source, a source's configuration or a folder"
            raise ConfigError(f"a {type(images).__name__}", where="images", allowed=allowed)
        if not self.ids:
            raise DataError("there are no images", hint="Do the filters of the store drop all of them?")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        number = range(len(self))[index]
        sample = self._images.load(self.ids[number]) if isinstance(self._images, Source) else self._images[number]
        if sample.image is None:
            raise DataError("there is no image", where=f"sample {sample.id}")
        return image_tensor(sample.image) if self.transform is None else self.transform(sample)


class UnlabeledStreams(Dataset[Any]):
    """Whole batches of unlabelled images: from every stream as many as `sizes` says, in the streams' order.

    ::

        streams = {"real": UnlabeledImages("unlabeled"), "synthetic": UnlabeledImages("synthetic")}
        batches = UnlabeledStreams(streams, {"real": 4, "synthetic": 4})
        for (images, labels), others in zip(labeled_loader, DataLoader(batches, batch_size=None, num_workers=2)):
            loss, figures = step(images, labels, others)

    An item is a batch, so that every batch has its share of each stream whatever the sampler does; hence
    ``batch_size=None``. In an epoch a stream's images come equally often, give or take one. What a batch holds depends
    on `seed`, epoch and its number alone: not on workers, shuffling or other random streams.

    Call `set_epoch` before every epoch, as for ``DistributedSampler``; persistent workers see it too. Several
    processes share the batches out by a ``DistributedSampler``; all of them need the same `seed`.

    Args:
        streams: Datasets by name whose items can be stacked, together with those of the other streams.
        sizes: Images of each stream in a batch; 0 leaves a stream out.
        batches: Batches of an epoch; by default as many as it takes to show every image of every stream once.
        seed: Source of the order.

    Attributes:
        origins: Name of the stream of every image in a batch.

    Raises:
        ConfigError: Sizes without streams or streams without sizes, or no image in a batch.
    """

    def __init__(
        self, streams: Mapping[str, MapStyle], sizes: Mapping[str, int], *, batches: int | None = None, seed: int = 0
    ) -> None:
        if set(streams) != set(sizes):
            found = f"sizes of {sorted(sizes)} for streams {sorted(streams)}"
            raise ConfigError(found, where="sizes", allowed="one number for every stream")
        used = {name: int(sizes[name]) for name in streams if sizes[name] != 0}
        if not used or min(used.values()) < 0 or any(used[name] != sizes[name] for name in used):
            raise ConfigError(f"{dict(sizes)}", where="sizes", allowed="whole numbers from 0, not all of them 0")
        for name in used:
            if not len(streams[name]):
                raise ConfigError("no images", where=f"streams.{name}", hint="Or set its size to 0")
        if batches is not None and batches < 1:
            raise ConfigError(f"{batches}", where="batches", allowed="at least 1")
        self.streams, self.sizes, self.seed = {name: streams[name] for name in used}, used, int(seed)
        self.batches = batches or max(-(-len(streams[name]) // size) for name, size in used.items())
        self.origins: tuple[str, ...] = tuple(name for name, size in used.items() for _ in range(size))
        self._epoch = SharedEpoch()
        self._drawn: tuple[int, dict[str, np.ndarray]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Draw another order from now on; datasets inside that have a ``set_epoch`` are told as well."""
        self._epoch.set(epoch)
        for dataset in self.streams.values():
            hand_on(dataset, epoch)

    def __len__(self) -> int:
        return self.batches

    def locate(self, index: int) -> list[tuple[str, int]]:
        """Return stream and number there of every image in batch `index` of the present epoch.

        Raises:
            IndexError: Not in ``[-len, len)``.
        """
        number = range(len(self))[index]
        orders = self._orders()
        return [
            (name, int(place))
            for name, size in self.sizes.items()
            for place in orders[name][number * size : (number + 1) * size]
        ]

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`, its items stacked.

        Raises:
            SampleError: Items that cannot be stacked: of several sizes, forms or types, or no tensors.
        """
        places = self.locate(index)
        items = [self.streams[name][place] for name, place in places]
        where = f"UnlabeledStreams, batch {index}"
        leaves = [dict(_leaves(item)) for item in items]
        (first, a), found = places[0], leaves[0]
        for (second, b), other in zip(places[1:], leaves[1:], strict=True):
            for part in (part for part in found if part in other and found[part] != other[part]):
                raise SampleError(
                    f"{first}[{a}]{part} is {found[part]}, {second}[{b}]{part} is {other[part]}",
                    where=where,
                    allowed="items of one shape",
                    hint="Crop or resize in the datasets' transform",
                )
        try:
            return default_collate(items)
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            found_types = ", ".join(sorted({type(item).__name__ for item in items}))
            hint = "Give the datasets a transform that returns tensors, all of one form"
            raise SampleError(
                f"items ({found_types}) that cannot be stacked: {error}", where=where, hint=hint
            ) from error

    def _orders(self) -> dict[str, np.ndarray]:
        """Return, for every stream, the numbers of its images in the order of the present epoch."""
        epoch = self._epoch.get()
        if self._drawn is None or self._drawn[0] != epoch:
            rng = Rng(self.seed).child("unlabeled", epoch)
            orders = {
                name: evenly(len(self.streams[name]), self.batches * size, rng.child(name))
                for name, size in self.sizes.items()
            }
            self._drawn = epoch, orders
        return self._drawn[1]

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_drawn": None}


def _leaves(item: Any, part: str = "") -> Iterator[tuple[str, list[int]]]:
    """Yield place and shape of every tensor or array in an item of nested tuples, lists and dictionaries."""
    if isinstance(item, Tensor | np.ndarray):
        yield part, list(item.shape)
    elif isinstance(item, Mapping):
        for key, value in item.items():
            yield from _leaves(value, f"{part}[{key!r}]")
    elif isinstance(item, tuple | list):
        for number, value in enumerate(item):
            yield from _leaves(value, f"{part}[{number}]")


def _source(table: Mapping[str, Any]) -> Source:
    """Build a source by configuration; paths refer to the working folder."""
    config: SourceConfig = validate(SourceConfig, dict(table), where="images")
    context = BuildContext(Path(), LabelSpace({0: "unlabelled"}), default_registry())
    source: Source = context.build("source", config.format, config.options, where="images")
    return source
