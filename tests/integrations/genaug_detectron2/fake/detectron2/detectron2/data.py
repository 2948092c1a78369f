from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager


class _DatasetCatalog(dict[str, Callable[[], list[dict[str, Any]]]]):
    def register(self, name: str, func: Callable[[], list[dict[str, Any]]]) -> None:
        assert name not in self
        self[name] = func

    def get(self, name: str) -> list[dict[str, Any]]:
        return self[name]()

    def list(self) -> list[str]:
        return list(self)


class Metadata(types.SimpleNamespace):
    """Attributes that may be set once, or again to the same."""

    def set(self, **kwargs: Any) -> Metadata:
        for name, value in kwargs.items():
            assert getattr(self, name, value) == value
            setattr(self, name, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)


class _MetadataCatalog(dict[str, Metadata]):
    def get(self, name: str) -> Metadata:
        return self.setdefault(name, Metadata(name=name))


DatasetCatalog, MetadataCatalog = _DatasetCatalog(), _MetadataCatalog()


class DatasetMapper:
    """Resizes the shorter side and flips; reads masks as grey, palettes included, as the real one does."""

    def __init__(
        self, cfg: Any = None, is_train: bool = True, *, augmentations: Any = None, image_format: str = ""
    ) -> None:
        if cfg is not None:
            made = self.from_config(cfg, is_train)
            augmentations, image_format = made["augmentations"], made["image_format"]
        self.is_train, self.format = is_train, image_format
        (self.sizes,) = augmentations

    @classmethod
    def from_config(cls, cfg: Any, is_train: bool = True) -> dict[str, Any]:
        """Of augmentations there is one here: the sizes of the shorter side, to choose from."""
        sizes = tuple(cfg.INPUT.MIN_SIZE_TRAIN if is_train else (cfg.INPUT.MIN_SIZE_TEST,))
        return {"augmentations": [sizes], "image_format": cfg.INPUT.FORMAT}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        made = dict(dataset_dict)
        image = self._read(made["file_name"], "RGB")
        factor = int(np.random.choice(self.sizes)) / min(image.size)  # noqa: NPY002 -- as the real one
        size = round(image.width * factor), round(image.height * factor)
        flip = self.is_train and np.random.rand() < 0.5  # noqa: NPY002
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        pixels = pixels[:, :, ::-1] if self.format == "BGR" else pixels
        made["image"] = self._tensor(pixels, flip).permute(2, 0, 1).contiguous()
        if "sem_seg_file_name" in made:
            mask = self._read(made.pop("sem_seg_file_name"), "L").resize(size, Image.Resampling.NEAREST)
            if self.is_train:
                made["sem_seg"] = self._tensor(np.asarray(mask), flip).long()
        return made

    @staticmethod
    def _tensor(array: np.ndarray, flip: bool) -> torch.Tensor:
        return torch.from_numpy(np.array(array[:, ::-1] if flip else array))

    @staticmethod
    def _read(name: str, mode: str) -> Image.Image:
        with PathManager.open(name, "rb") as file:
            return Image.open(file).convert(mode)


def get_detection_dataset_dicts(
    names: str | Sequence[str], filter_empty: bool = True, check_consistency: bool = True
) -> list[dict[str, Any]]:
    return [entry for name in ([names] if isinstance(names, str) else names) for entry in DatasetCatalog.get(name)]


class _Mapped(Dataset[Any]):
    def __init__(self, dicts: Sequence[dict[str, Any]], mapper: Any) -> None:
        self.dicts, self.mapper = dicts, mapper

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, index: int) -> Any:
        return self.mapper(self.dicts[index])


class _Endless(Sampler[int]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.size).tolist()


def _reseed(worker_id: int) -> None:
    np.random.seed((torch.initial_seed() + worker_id) % 2**31)  # noqa: NPY002


def build_detection_train_loader(
    cfg: Any = None,
    *,
    dataset: Any = None,
    mapper: Any = None,
    total_batch_size: int | None = None,
    num_workers: int | None = None,
) -> Any:
    if cfg is not None:
        dataset = get_detection_dataset_dicts(cfg.DATASETS.TRAIN) if dataset is None else dataset
        mapper = DatasetMapper(cfg, True) if mapper is None else mapper
        total_batch_size, num_workers = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS
    return DataLoader(
        _Mapped(dataset, mapper),
        batch_size=(total_batch_size or 1) // comm.get_world_size(),
        sampler=_Endless(len(dataset)),
        num_workers=num_workers or 0,
        collate_fn=list,
        worker_init_fn=_reseed,
    )


def build_detection_test_loader(cfg: Any, dataset_name: str) -> Any:
    mapper = DatasetMapper(cfg, False)
    return DataLoader(_Mapped(get_detection_dataset_dicts(dataset_name), mapper), collate_fn=list)
