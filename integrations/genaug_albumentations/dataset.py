"""A dataset with a pipeline over it, every item with random numbers of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from genaug.errors import ConfigError, SampleError
from genaug_albumentations.arguments import METADATA_KEY
from genaug_albumentations.seeding import seed_sample
from genaug_torch.epochs import SharedEpoch, hand_on
from genaug_torch.mixed_dataset import MapStyle


class TransformDataset(Dataset[Any]):
    """Calls a pipeline on every item of a map-style dataset.

    Items are ``(image, mask)``, or tables of named arrays, all of which the pipeline is called with. What comes back
    has the same form, less the metadata: a table has what the pipeline returned, a pair its image and mask.

    All draws of the pipeline, those of albumentations' own transforms included, depend on `seed`, the epoch and the
    item's id alone: see `seed_sample`. Workers, their start method and their number change nothing, and no
    ``worker_init_fn`` is needed. An item that a sampler repeats within an epoch is the same both times.

    Call `set_epoch` before every epoch; persistent workers see it too. Without it, every epoch is the same.

    Args:
        dataset: What to read from, with a length.
        transform: An ``A.Compose``.
        ids: Id of every item, in order, all different; handed to the pipeline as ``genaug_metadata={"id": ...}``. By
            default items are known by their number, and no id is handed over.
        seed: Source of the draws.
        metadata: More of ``genaug_metadata``, the same for all items: ``{"donors": labelled_dataset}``.
        metadata_key: Name of the pipeline's argument.

    Raises:
        ConfigError: `ids` are not as many as the items, or not all different.
        SampleError: An item is neither a pair nor a table.
    """

    def __init__(
        self,
        dataset: MapStyle,
        transform: Any,
        *,
        ids: Sequence[str] | None = None,
        seed: int = 0,
        metadata: Mapping[str, Any] | None = None,
        metadata_key: str = METADATA_KEY,
    ) -> None:
        if ids is not None and (len(ids) != len(dataset) or len(set(ids)) != len(ids)):
            found = f"{len(ids)} ids, {len(set(ids))} of them different, for {len(dataset)} items"
            raise ConfigError(found, where="TransformDataset, ids", allowed="one for each item")
        self.dataset, self.transform, self.seed = dataset, transform, int(seed)
        self.ids = None if ids is None else tuple(ids)
        self.metadata, self.metadata_key = dict(metadata or {}), metadata_key
        self._epoch = SharedEpoch()

    def set_epoch(self, epoch: int) -> None:
        """Draw anew from now on; call it before the epoch's iterator is made.

        Args:
            epoch: Number of the epoch, 0 or more.
        """
        self._epoch.set(epoch)
        hand_on(self.dataset, epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index %= len(self)
        item, metadata = self.dataset[index], dict(self.metadata)
        if self.ids is not None:
            metadata["id"] = self.ids[index]
        if not isinstance(item, Mapping) and not (isinstance(item, tuple | list) and len(item) == 2):
            found = f"item {index} is a {type(item).__name__}"
            raise SampleError(found, where="TransformDataset", allowed="(image, mask), or a table of named arrays")
        given = dict(item) if isinstance(item, Mapping) else {"image": item[0], "mask": item[1]}
        if metadata:
            given[self.metadata_key] = metadata
        seed_sample(self.transform, seed=self.seed, sample_id=metadata.get("id", index), epoch=self._epoch.get())
        result = self.transform(**given)
        result.pop(self.metadata_key, None)
        return result if isinstance(item, Mapping) else (result["image"], result["mask"])
