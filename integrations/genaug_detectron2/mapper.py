"""A mapper that hands some samples over to synthetic ones and looks at the masks that come out."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from genaug.errors import ConfigError, SampleError
from genaug.rng import Rng
from genaug_detectron2.catalog import LOST, DatasetDict
from genaug_detectron2.probe import reads_indices

Mapper = Callable[[DatasetDict], Any]
Match = Literal["any", "own"]

#: Entry of dataset dictionaries, before the mapper (``position`` of a `StreamLoader`) and after it.
PROVENANCE = "genaug"
#: What synthetic samples cannot bring along.
INSTANCES = ("annotations", "pan_seg_file_name", "segments_info")

#: Datasets that a mapper of this process was made for; a trainer tells when its configuration names another.
DRAWN: set[str] = set()


class SyntheticMapper:
    """Wraps any mapper; with some probability the mapper gets a synthetic sample in place of the real one.

    What comes out has an entry ``genaug``: ``{"synthetic": <image id> or None}``, which reaches the model's inputs also
    from workers. Draws use neither numpy's nor torch's global state, so the augmentations of the wrapped mapper are the
    ones it would draw without. In a `StreamLoader` they depend on seed and position alone. In detectron2's own loader
    nothing tells a mapper its position: they depend on the seed, the process, the worker and its count of samples, are
    different in all workers, and repeat with the same number of workers.

    Every mask that comes out is looked at: values that are no class are refused, and so are masks with a palette, of
    1 bit or with values above 255 whose indices the mapper has lost (``DatasetMapper`` reads brightnesses;
    Mask2Former's mappers read indices).

    Args:
        mapper: The mapper to wrap, e.g. ``DatasetMapper`` or ``MaskFormerSemanticDatasetMapper``.
        synthetic: Name of a registered dataset, see `register_store`; None draws nothing and only checks.
        probability: Of a synthetic sample, 0 to 1.
        match: ``any`` synthetic sample, or one made from the real sample's ``own`` mask, found by the file's stem; real
            samples without one of their own then stay.
        seed: Source of the draws.
        num_classes: K, for the look at the masks; values are not checked without it.
        ignore_index: Label that is no class.

    Raises:
        ConfigError: An argument out of range, or an empty dataset.
    """

    def __init__(
        self,
        mapper: Mapper,
        synthetic: str | None = None,
        *,
        probability: float = 0.5,
        match: Match = "any",
        seed: int = 0,
        num_classes: int | None = None,
        ignore_index: int = 255,
    ) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError(f"{probability}", where="probability", allowed="0 to 1")
        if match not in get_args(Match):
            raise ConfigError(f"{match!r}", where="match", allowed=" or ".join(map(repr, get_args(Match))))
        self.mapper, self.probability, self.match = mapper, probability, match
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.dicts: list[DatasetDict] = [] if synthetic is None else DatasetCatalog.get(synthetic)
        if synthetic is not None:
            DRAWN.add(synthetic)
            if not self.dicts:
                raise ConfigError(f"the dataset {synthetic!r} is empty", where="synthetic")
        self._own: dict[str, list[int]] = defaultdict(list)
        for number, entry in enumerate(self.dicts):
            self._own[str(entry.get("condition_id", entry["image_id"]))].append(number)
        # Spawned workers know nothing of the other processes: the rank is noted here, in the process itself.
        self._rng = Rng(seed).child("synthetic", comm.get_rank())
        self._anywhere = Rng(seed).child("synthetic")
        self._count = 0
        self._looked: set[str] = set()
        self._verdicts: dict[str, bool | None] = {}  # of the mapper, by the mode of files

    @classmethod
    def from_config(cls, cfg: Any, mapper: Mapper | None = None) -> SyntheticMapper:
        """Build from ``cfg.GENAUG``, see `add_genaug_config`; the mapper is ``DatasetMapper(cfg)`` by default.

        Raises:
            ConfigError: The synthetic dataset has other classes than the first training dataset.
        """
        options, head = cfg.GENAUG, cfg.MODEL.SEM_SEG_HEAD
        if options.SYNTHETIC and cfg.DATASETS.TRAIN:
            _same_classes(cfg.DATASETS.TRAIN[0], options.SYNTHETIC)
        return cls(
            DatasetMapper(cfg, is_train=True) if mapper is None else mapper,
            options.SYNTHETIC or None,
            probability=options.PROBABILITY,
            match=options.MATCH,
            seed=options.SEED,
            num_classes=head.NUM_CLASSES,
            ignore_index=head.IGNORE_VALUE,
        )

    def __call__(self, dataset_dict: DatasetDict) -> Any:
        """Map the sample, or a synthetic one in its place.

        Raises:
            SampleError: The mask that comes out is wrong, see above; or the sample has instances, which a synthetic one
                could not replace.
        """
        chosen = self._draw(dataset_dict) if self.dicts else None
        if chosen is not None:
            lost = [name for name in INSTANCES if name in dataset_dict]
            if lost:
                raise SampleError(
                    f"{dataset_dict.get('file_name')} has {', '.join(lost)}, which synthetic samples lack",
                    where=type(self).__name__,
                    allowed="datasets for semantic segmentation",
                    hint="The instance head would learn that nothing is there",
                )
        given = dataset_dict if chosen is None else chosen
        made = self.mapper(copy.deepcopy(given))  # some mappers change what they get
        if made is None:
            return None
        self._check(given, made)
        told = {"synthetic": None if chosen is None else chosen["image_id"]}
        made[PROVENANCE] = {**(dataset_dict.get(PROVENANCE) or {}), **told}
        return made

    def _draw(self, dataset_dict: Mapping[str, Any]) -> DatasetDict | None:
        generator = self._stream(dataset_dict).numpy()
        wanted, place = generator.random() < self.probability, generator.random()
        numbers: Sequence[int] = range(len(self.dicts))
        if self.match == "own":
            numbers = self._own.get(Path(str(dataset_dict["file_name"])).stem, ())
        if not wanted or not numbers:
            return None
        return self.dicts[numbers[int(place * len(numbers))]]

    def _stream(self, dataset_dict: Mapping[str, Any]) -> Rng:
        position = (dataset_dict.get(PROVENANCE) or {}).get("position")
        if position is not None:
            return self._anywhere.child("position", position)
        worker = get_worker_info()
        self._count += 1  # of this worker: each has a copy of the mapper
        # A worker's seed is new in every epoch of a loader that ends; detectron2's own never do.
        return self._rng.child("main" if worker is None else worker.seed, self._count)

    def _check(self, given: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        if made.get("sem_seg") is None:
            return
        mask, file = torch.as_tensor(made["sem_seg"]), given.get("sem_seg_file_name")
        if self.num_classes is not None:
            outside = (mask != self.ignore_index) & ((mask < 0) | (mask >= self.num_classes))
            if outside.any():
                raise SampleError(
                    f"values {torch.unique(mask[outside]).tolist()[:8]}",
                    where=f"mask {file}",
                    allowed=f"0 to {self.num_classes - 1}, or the ignore index {self.ignore_index}",
                    hint="See genaug_detectron2.check_dataset",
                )
        if file is not None and file not in self._looked and self._reads_indices(given, mask):
            self._looked.add(file)

    def _reads_indices(self, given: Mapping[str, Any], mask: Tensor) -> bool:
        """Return True if the mapper reads the indices of this file, False if nothing tells.

        A file is safe if every index is as bright as itself. Otherwise a reader of brightness returns other values, and
        these may happen to be valid classes, or the ignore index. So the mapper is probed, once for each kind of file;
        where that does not tell, the mask has to.

        Raises:
            SampleError: The mapper reads brightnesses; or it is not known what it reads, and the mask holds the
                brightness of an index, or something that is no index.
        """
        file = str(given["sem_seg_file_name"])
        with PathManager.open(file, "rb") as opened, Image.open(opened) as image:
            mode, size = image.mode, image.size
            if mode not in LOST or self._verdicts.get(mode):
                return True
            pixels, seen = np.asarray(image), np.asarray(image.convert("L"))
        indices, first = np.unique(pixels if pixels.ndim == 2 else pixels[..., 0], return_index=True)  # PA has two
        brightness = dict(zip(indices.astype(int).tolist(), seen.ravel()[first].tolist(), strict=True))
        if all(i == v for i, v in brightness.items()):
            return True
        if mode not in self._verdicts:
            self._verdicts[mode] = reads_indices(self.mapper, given, mode, size, ignore_index=self.ignore_index)
        if self._verdicts[mode]:
            return True
        found = set(torch.unique(mask).tolist())
        read = found - set(brightness.values()) - {self.ignore_index}  # what no reader of brightness returns
        wrong = read - set(brightness) or (set() if read else found & {v for i, v in brightness.items() if v != i})
        if wrong or self._verdicts[mode] is False:
            raise SampleError(
                f"{LOST[mode]}: {sorted(wrong or found)[:8]} need not be its indices {sorted(brightness)[:8]}",
                where=f"mask {file}",
                allowed="8-bit grey PNG of class indices",
                hint="Convert it: Image.fromarray(np.array(Image.open(file))).save(new)",
            )
        return bool(read)


def _same_classes(real: str, synthetic: str) -> None:
    names = [MetadataCatalog.get(name).get("stuff_classes") for name in (real, synthetic)]
    if all(names) and list(names[0]) != list(names[1]):
        pairs = enumerate(zip(names[0], names[1], strict=False))
        number, told = next(((n, pair) for n, pair in pairs if pair[0] != pair[1]), (min(map(len, names)), None))
        found = f"{len(names[0])} and {len(names[1])} classes" if told is None else f"{told[0]!r} and {told[1]!r}"
        raise ConfigError(
            f"{real!r} and {synthetic!r} differ from class {number} on: {found}",
            where="GENAUG.SYNTHETIC",
            allowed="equal stuff_classes, in the same order",
        )
