"""genaug for transformers: self-training in its Trainer, and a collator for stores, mixed and unlabelled data."""

from importlib.util import find_spec

from genaug.errors import missing_dependency

for _module in ("transformers", "accelerate"):  # the Trainer needs both
    if find_spec(_module) is None:
        raise missing_dependency(_module, "diffusion", where="genaug_transformers")

from genaug_transformers.data import Pair, SegmentationCollator, WithUnlabeled  # noqa: E402
from genaug_transformers.trainer import SelfTrainingTrainer  # noqa: E402

__all__ = ["Pair", "SegmentationCollator", "SelfTrainingTrainer", "WithUnlabeled"]
