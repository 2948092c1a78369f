"""genaug in albumentations: transforms that draw from a store, cut and mask patches, and random numbers that differ.

Works with albumentations 2.0.8 and with AlbumentationsX, whichever is installed. Importing this package imports it.
"""

from genaug_albumentations.copy_paste import CopyPasteFromStore
from genaug_albumentations.dataset import TransformDataset
from genaug_albumentations.files import load_pipeline
from genaug_albumentations.patch_cutmix import PatchCutMix
from genaug_albumentations.patch_mask import PatchMask
from genaug_albumentations.seeding import seed_sample, seed_worker
from genaug_albumentations.swap import SyntheticSwap

__all__ = [
    "CopyPasteFromStore",
    "PatchCutMix",
    "PatchMask",
    "SyntheticSwap",
    "TransformDataset",
    "load_pipeline",
    "seed_sample",
    "seed_worker",
]
