"""Items of any kind as the inputs of a model: labelled and unlabelled data in one dataset, and what collates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from genaug.batch import Batch, image_tensor
from genaug.errors import ConfigError, SampleError
from genaug.rng import Rng
from genaug.sources.files import rotation
from genaug.types import Sample
from genaug_torch.epochs import SharedEpoch, hand_on
from genaug_torch.mixed_dataset import MapStyle
from genaug_torch.views import channels

#: What dictionaries call an image and its mask: transformers, and the data sets of the Hub.
IMAGES = ("pixel_values", "image")
MASKS = ("labels", "label", "mask", "annotation")
#: Above it, a float image is one of 0 to 255; normalised ones stay below.
FLOATS_TO = 16.0
#: Permutations in memory: an epoch in shuffled order goes to and fro between them.
ROUNDS_KEPT = 8


class Pair(NamedTuple):
    """An item of a labelled dataset, and the items of an unlabelled one that go into the same batch."""

    labeled: Any
    unlabeled: tuple[Any, ...]


class WithUnlabeled(Dataset[Pair]):
    """A labelled dataset whose items bring unlabelled ones along, so that one loader serves a self-training step.

    The trainer's own loader then does for both what it does for one: workers, several processes, and the skipping of
    batches when a run goes on. Which unlabelled items come depends on `seed`, epoch and item number alone. All of them
    are drawn equally often, give or take one, over any number of epochs in a row, if every epoch uses every item.

    Call `set_epoch` before every epoch (`SelfTrainingTrainer` does). Datasets inside that have a ``set_epoch`` of their
    own, such as `MixedDataset`, are told as well.

    For fixed numbers of real and synthetic images, `unlabeled` is a `genaug_torch.UnlabeledStreams`. An item of it is a
    batch, so its `sizes` are those for one labelled item: ``{"real": 1, "synthetic": 2}`` and a batch size of 4 make
    4 real and 8 synthetic images beside 4 labelled ones. What comes equally often are then these batches; the images of
    a stream do so on average.

    Args:
        labeled: Labelled items, map-style.
        unlabeled: Unlabelled items, map-style; masks that they may have are never looked at.
        per_item: Unlabelled items (or batches of streams) for every labelled one.
        seed: Source of the draws.

    Raises:
        ConfigError: `unlabeled` is empty, or `per_item` below 1.
    """

    def __init__(self, labeled: MapStyle, unlabeled: MapStyle, *, per_item: int = 1, seed: int = 0) -> None:
        if not len(unlabeled):
            raise ConfigError("no unlabelled items", where="unlabeled", allowed="at least one")
        if per_item < 1:
            raise ConfigError(f"{per_item}", where="per_item", allowed="a whole number from 1")
        self.labeled, self.unlabeled = labeled, unlabeled
        self.per_item, self.seed = per_item, seed
        self._epoch = SharedEpoch()
        self._rounds: dict[int, np.ndarray] = {}

    def set_epoch(self, epoch: int) -> None:
        """Bring other unlabelled items from now on; call it before the epoch's iterator is made."""
        self._epoch.set(epoch)
        for dataset in (self.labeled, self.unlabeled):
            hand_on(dataset, epoch)

    def __len__(self) -> int:
        return len(self.labeled)

    def numbers(self, index: int) -> tuple[int, ...]:
        """Return which unlabelled items item `index` of the present epoch brings along."""
        first = (self._epoch.get() * len(self) + index % len(self)) * self.per_item
        return tuple(self._number(first + place) for place in range(self.per_item))

    def _number(self, place: int) -> int:
        """Return the item at a place of an endless sequence of permutations."""
        number, place = divmod(place, len(self.unlabeled))
        if number not in self._rounds:
            if len(self._rounds) > ROUNDS_KEPT:
                self._rounds.clear()
            stream = Rng(self.seed).child("unlabeled", number)
            self._rounds[number] = stream.numpy().permutation(len(self.unlabeled))
        return int(self._rounds[number][place])

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.labeled[index], tuple(self.unlabeled[number] for number in self.numbers(index)))

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_rounds": {}}


class SegmentationCollator:
    """Makes a batch of items of any kind, mixed ones included: real items of one form, a store's of another.

    An item is one of

    * ``(image, mask)``, as `StoreDataset` gives it, or an image alone;
    * a dictionary with ``image`` (or ``pixel_values``) and ``mask`` (``labels``, ``label``, ``annotation``), as data
      sets of the Hub are; floating point ``pixel_values`` are taken as they are, ready for the model;
    * a `genaug.Sample`, or a `Batch` of one image, which is what `WeakView` returns and knows what is padding;
    * a `Pair` of these, which `WithUnlabeled` gives. Its unlabelled items may also be whole batches, as those of
      `genaug_torch.UnlabeledStreams`: tensors with one more dimension in front, alone, in a tuple or in a dictionary.

    An image is a PIL image of mode RGB, L, P or 1, uint8 ``[H, W, 3]``, a uint8 tensor ``[3, H, W]`` or a float one in
    ``[0, 1]``; a mask is a PIL image of mode L, P or I, or integers ``[H, W]``, and holds class indices 0 to K - 1 or
    the ignore index. PIL images must not ask for a rotation by EXIF. Images of a batch must have one size; the image
    processors of transformers, which are not needed here, or your transforms see to that.

    Args:
        mean: What is subtracted from images in ``[0, 1]``, one number a channel, e.g. ``processor.image_mean``.
        std: What they are divided by then. Give both to the step, too.

    Raises:
        ConfigError: `mean` or `std` is not three numbers.
    """

    def __init__(self, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        self._mean, self._std = channels(mean, 0.0, "mean")[0], channels(std, 1.0, "std")[0]

    def __call__(self, items: Sequence[Any]) -> dict[str, Tensor]:
        """Return a batch.

        Returns:
            ``pixel_values`` float32 ``[B, 3, H, W]`` and ``labels`` int64 ``[B, H, W]`` (none if no item has a mask);
            of pairs also ``unlabeled`` float32 ``[M, 3, H, W]``. Where an item knows of padding, ``labeled_valid`` and
            ``valid`` (of the unlabelled images), bool.

        Raises:
            SampleError: No item, one of another form, masks for some only, images of several sizes, or unlabelled
                items of two views: the step makes strong views.
        """
        if not items:
            raise SampleError("no item", where="SegmentationCollator", allowed="at least one")
        pairs = [item for item in items if isinstance(item, Pair)]
        images, masks, valid = self._stacked([item.labeled if isinstance(item, Pair) else item for item in items])
        batch = {"pixel_values": images, "labels": masks, "labeled_valid": valid}
        if pairs:
            items = [item for pair in pairs for some in pair.unlabeled for item in _apart(some)]
            unlabeled, _, valid = self._stacked(items, labeled=False)
            batch |= {"unlabeled": unlabeled, "valid": valid}
        return {name: value for name, value in batch.items() if value is not None}

    def _stacked(self, items: Sequence[Any], *, labeled: bool = True) -> tuple[Tensor, Tensor | None, Tensor | None]:
        images, found, valid = zip(*(self._parts(item) for item in items), strict=True)
        masks = [_mask(mask) if labeled else None for mask in found]
        sizes = {tuple(value.shape[-2:]) for value in (*images, *masks) if value is not None}
        if len(sizes) > 1:
            raise SampleError(
                f"images or masks of sizes {sorted(sizes)}",
                where="SegmentationCollator",
                allowed="one size in a batch",
                hint="Resize or crop in the dataset: genaug_torch.WeakView crops, pads and tells what is padding",
            )
        given = [mask for mask in masks if mask is not None]
        if 0 < len(given) < len(masks):
            bare = next(number for number, mask in enumerate(masks) if mask is None)
            name = f" ({items[bare].id})" if isinstance(items[bare], Sample) else ""
            raise SampleError(
                f"item {bare} of the batch{name} has no mask, {len(given)} of {len(masks)} have one",
                where="SegmentationCollator",
                allowed="masks for all items or for none",
                hint="Unlabelled images come by genaug_transformers.WithUnlabeled(labeled, unlabeled)",
            )
        labels = torch.stack(given) if given else None
        if all(mask is None for mask in valid):
            return torch.stack(images), labels, None
        whole = torch.ones(next(iter(sizes)), dtype=torch.bool)
        return torch.stack(images), labels, torch.stack([whole if mask is None else mask for mask in valid])

    def _parts(self, item: Any) -> tuple[Tensor, Any, Tensor | None]:
        """Return image ``[3, H, W]``, the mask of any form or None, and what is not padding or None."""
        if isinstance(item, Batch):
            targets = None if item.targets is None else item.targets[0]
            return self._normalised(item.images[0]), targets, None if item.valid is None else item.valid[0]
        image: Any
        mask: Any
        if isinstance(item, Sample):
            image, mask = item.image, item.mask
        elif isinstance(item, Mapping):
            image, mask = (next((item[name] for name in names if name in item), None) for names in (IMAGES, MASKS))
            if image is None:
                raise _strange(item, hint="A plain Trainer drops such entries unless remove_unused_columns=False")
            if "pixel_values" in item and not isinstance(image, Image.Image):
                image = torch.as_tensor(image)
                if image.is_floating_point():
                    return image, mask, None
        elif isinstance(item, tuple | list):
            if len(item) != 2:
                raise _strange(item)
            image, mask = item
        else:
            image, mask = item, None
        return self._normalised(_image(image)), mask, None

    def _normalised(self, image: Tensor) -> Tensor:
        return (image.float() - self._mean) / self._std


def _apart(item: Any) -> Sequence[Any]:
    """Return the items of an unlabelled batch; anything else is one item.

    Raises:
        SampleError: Pairs of views, whose second would pass for a mask, which nobody looks at.
    """
    parts = list(item.values()) if isinstance(item, Mapping) else item if isinstance(item, tuple | list) else [item]
    pictures = [part.ndim for part in parts if isinstance(part, Tensor) and part.is_floating_point()]
    if isinstance(item, tuple | list) and len([ndim for ndim in pictures if ndim >= 3]) > 1:
        raise SampleError(
            f"{len(pictures)} views of an unlabelled image",
            where="SegmentationCollator",
            allowed="one image",
            hint="The step makes strong views itself (views.strong); to make your own, call it in a loop of your own",
        )
    if not any(isinstance(part, Tensor) and part.ndim == 4 for part in parts):
        return [item]
    rows = zip(*parts, strict=True)
    if isinstance(item, Mapping):
        return [dict(zip(item, row, strict=True)) for row in rows]
    return list(rows) if isinstance(item, tuple | list) else list(item)


def _image(value: Any) -> Tensor:
    if isinstance(value, Image.Image):
        if value.mode not in {"RGB", "L", "P", "1"}:  # what convert() would cut off at 255, blend or mix anew
            hint = "More bits have to be scaled to 8; where transparency means nothing, image.convert('RGB') drops it"
            found = f"an image of mode {value.mode}"
            raise SampleError(found, where="SegmentationCollator", allowed="RGB, L, P or 1", hint=hint)
        _refuse_rotation(value)
        value = np.asarray(value.convert("RGB"))
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3:
        return image_tensor(value)
    if isinstance(value, Tensor) and value.ndim == 3 and len(value) == 3:
        if value.dtype == torch.uint8:
            return value.float() / 255
        if value.is_floating_point():
            if value.numel() and value.max() > FLOATS_TO:
                found = f"a float image with values up to {float(value.max()):.4g}"
                raise SampleError(found, where="SegmentationCollator", allowed="0 to 1, or uint8", hint="Divide by 255")
            return value
    raise _strange(value)


def _refuse_rotation(picture: Image.Image) -> None:
    if (turned := rotation(picture)) is not None:
        raise SampleError(
            f"a picture that EXIF asks to rotate (orientation {turned})",
            where="SegmentationCollator",
            allowed="pixels the right way up",
            hint="PIL.ImageOps.exif_transpose rotates them; see that image and mask are turned alike",
        )


def _mask(value: Any) -> Tensor | None:
    if value is None:
        return None
    if isinstance(value, Image.Image):
        _refuse_rotation(value)
    if isinstance(value, Image.Image) and value.mode not in {"L", "P", "I", "I;16"}:
        hint = "Turn colours into class indices first; a palette image keeps them"
        raise SampleError(f"a mask of mode {value.mode}", where="SegmentationCollator", allowed="L, P or I", hint=hint)
    mask = torch.as_tensor(np.array(value)) if isinstance(value, Image.Image | np.ndarray) else torch.as_tensor(value)
    if mask.ndim != 2 or mask.is_floating_point():
        found = f"a mask {mask.dtype} of shape {tuple(mask.shape)}"
        raise SampleError(found, where="SegmentationCollator", allowed="integers [H, W]")
    return mask.long()


def _strange(item: Any, *, hint: str | None = None) -> SampleError:
    found = f"a {type(item).__name__}"
    if isinstance(item, Mapping):
        found += f" with {', '.join(map(str, item)) or 'nothing'}"
    elif isinstance(item, tuple | list):
        found += f" of {len(item)}"
    elif isinstance(item, Tensor | np.ndarray):
        found += f" {item.dtype} of shape {tuple(item.shape)}"
    allowed = "an image, (image, mask), a dictionary with 'image' and 'mask', a Sample, or a Batch of one image"
    return SampleError(found, where="SegmentationCollator", allowed=allowed, hint=hint)
