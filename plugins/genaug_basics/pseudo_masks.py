"""The source ``pseudo-masks``: unlabelled images with the masks that a segmenter sees in them (MatchMask++)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from genaug.errors import DataError, StoreError
from genaug.interfaces import Predictor
from genaug.labels import LabelSpace
from genaug.sources.base import Source
from genaug.sources.config import MAX_PIXELS, FolderOptions
from genaug.sources.files import RefusedError, read_mask
from genaug.sources.folder import FolderSource
from genaug.store.files import encode_mask, make_folder, write_whole
from genaug.types import Image, Mask, Sample, SamplePart
from genaug_basics.fingerprint import fingerprint
from genaug_basics.regions import check_scikit_image, ignore_regions

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug.sources.survey import Survey
    from genaug_basics.config import PseudoMasksOptions

RECORD = "pseudo_masks.json"


class PseudoMasks(Source):
    """Images, each with the mask that a predictor sees in it (MatchMask++, step 2).

    The paper uses the predicted masks as they are; `min_confidence` and `min_region` are ours, for segmenters whose
    masks are too noisy to make images for. They judge connected regions and need scikit-image.

    Args:
        images: The unlabelled images.
        predictor: The segmenter.
        labels: Class table.
        min_confidence: Ignore regions of a lower mean softmax probability, in ``(0, 1]``; None switches it off.
        min_region: Ignore regions of fewer pixels; 0 switches it off.
        cache: Folder for the masks, ``<id>.png`` with ids as grey values, written on first use of each image; None
            predicts on every load.
        device: Torch device of the predictor.

    Raises:
        MissingDependencyError: A gate is on and scikit-image is not installed.
    """

    def __init__(
        self,
        images: Source,
        predictor: Predictor,
        *,
        labels: LabelSpace,
        min_confidence: float | None = None,
        min_region: int = 0,
        cache: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self.images, self.predictor, self.labels = images, predictor, labels
        self.min_confidence, self.min_region = min_confidence, min_region
        self.cache, self.device = cache, device
        self._cache_checked = False
        if self._gated:
            check_scikit_image("conditions.min_confidence and min_region")

    @classmethod
    def from_config(cls, options: PseudoMasksOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        folder = FolderOptions(
            images=options.images,
            labeled=options.list,
            recursive=options.recursive,
            gray=options.gray,
            max_pixels=options.max_pixels,
        )
        return cls(
            FolderSource(folder, context.labels, root=context.root),
            context.predictor(options.predictor, where="conditions.predictor"),
            labels=context.labels,
            min_confidence=options.min_confidence,
            min_region=options.min_region,
            cache=None if options.cache is None else context.path(options.cache),
            device=context.device,
        )

    def ids(self) -> Sequence[str]:
        """Return the ids of the images."""
        return self.images.ids()

    def parts(self) -> Collection[SamplePart]:
        """Return that samples have images and masks, the latter once they are loaded."""
        return ["image", "mask"]

    def folders(self) -> Sequence[Path]:
        """Return the folders that the images are read from."""
        return self.images.folders()

    def survey(self) -> Survey:
        """Read the images only: the predictor need not have learned anything yet."""
        return self.images.survey()

    def outline(self, sample_id: str) -> Sample:
        """Read one image only: the predictor need not have learned anything yet."""
        return self.images.load(sample_id)

    def load(self, sample_id: str) -> Sample:
        """Read one image and read or predict its mask.

        Raises:
            DataError: The image is not usable, or a cached mask is damaged or of another size.
            StoreError: The cache cannot be written, or holds masks of another predictor or of other options.
        """
        sample = self.images.load(sample_id)
        if sample.image is None:
            raise DataError("there is no image to predict a mask for", where=f"sample {sample_id}")
        mask = self._cached(sample_id, sample.image)
        return Sample(sample_id, sample.image, mask, {**sample.meta, "mask": "predicted"})

    @property
    def _gated(self) -> bool:
        return self.min_confidence is not None or self.min_region > 0

    def _cached(self, sample_id: str, image: Image) -> Mask:
        if self.cache is None:
            return self._predict(image)
        if not self._cache_checked:
            self._open_cache(self.cache)
        path = self.cache / f"{sample_id}.png"
        if not path.is_file():
            mask = self._predict(image)
            write_whole(path, encode_mask(mask), tag="pseudo")
            return mask
        hint = "Delete this file to have it predicted again"
        try:
            mask = read_mask(path, name=path.name, colors=None, max_pixels=MAX_PIXELS)
        except RefusedError as error:
            raise DataError(f"{error.finding.subject}: {error.finding.what}", where=str(path), hint=hint) from error
        if mask.shape != image.shape[:2]:
            found = f"the mask is {mask.shape}, its image {image.shape[:2]} (height, width)"
            raise DataError(found, where=str(path), hint=hint)
        return mask

    def _predict(self, image: Image) -> Mask:
        from genaug_basics.inference import BatchedPredictor

        segmenter = BatchedPredictor(self.predictor, labels=self.labels, batch_size=1, device=self.device)
        ids, confidence = segmenter.ids_and_confidence([image])
        if not self._gated:
            mask: Mask = ids[0]
            return mask
        return ignore_regions(
            ids[0],
            confidence[0],
            min_confidence=self.min_confidence or 0.0,
            min_region=self.min_region,
            ignore_index=self.labels.ignore_index,
        )

    def _open_cache(self, folder: Path) -> None:
        """Make sure that what lies in the cache was made by this predictor with these options."""
        made_with = {
            "predictor": fingerprint(self.predictor),
            "labels": hashlib.sha256(json.dumps(self.labels.to_dict(), sort_keys=True).encode()).hexdigest(),
            "min_confidence": self.min_confidence,
            "min_region": self.min_region,
        }
        make_folder(folder)
        record = folder / RECORD
        if record.is_file():
            try:
                before = json.loads(record.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise StoreError(f"cannot be read: {error}", where=str(record), hint="Delete the cache") from error
            changed = sorted(key for key in made_with if before.get(key) != made_with[key])
            if changed:
                raise StoreError(
                    f"its masks were predicted with another {' and another '.join(changed)}",
                    where=str(folder),
                    hint="Name another folder as 'cache', or delete this one",
                )
        else:
            text = json.dumps(made_with, indent=2) + "\n"
            write_whole(record, text.encode(), tag="pseudo")
        self._cache_checked = True
