"""genaug for detectron2: stores as datasets, a mapper that draws from them, self-training as a hook."""

from __future__ import annotations

from importlib.util import find_spec

from genaug.errors import MissingDependencyError

if find_spec("detectron2") is None:
    # Not on the package index, so it can be no extra.
    raise MissingDependencyError(
        "the Python package 'detectron2' is not installed",
        where="genaug_detectron2",
        hint="Install it with: python -m pip install 'git+https://github.com/facebookresearch/detectron2.git'",
    )

from genaug_detectron2.catalog import check_dataset, register_store
from genaug_detectron2.hook import SelfTraining, save_teacher
from genaug_detectron2.mapper import SyntheticMapper
from genaug_detectron2.stream import StreamLoader, unlabeled_dicts
from genaug_detectron2.trainer import SelfTrainingMixin, add_genaug_config

__all__ = [
    "SelfTraining",
    "SelfTrainingMixin",
    "StreamLoader",
    "SyntheticMapper",
    "add_genaug_config",
    "check_dataset",
    "register_store",
    "save_teacher",
    "unlabeled_dicts",
]
