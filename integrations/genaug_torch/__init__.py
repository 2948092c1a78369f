"""genaug for hand-written PyTorch loops: stores as datasets, mixed data, self-training in one step."""

from genaug_torch.encode_ratio import EncodeRatioDataset, encode_ratio_at
from genaug_torch.losses import supervised_loss, unlabeled_loss
from genaug_torch.mixed_dataset import MixedDataset
from genaug_torch.outputs import OutputReader, project_queries
from genaug_torch.regularizers import LabeledOutput, Regularizer
from genaug_torch.sets import SetLoss, to_set_targets
from genaug_torch.step import SemiSupervisedStep
from genaug_torch.store_dataset import StoreDataset
from genaug_torch.teacher import EmaTeacher
from genaug_torch.unlabeled import UnlabeledImages, UnlabeledStreams
from genaug_torch.views import StrongView
from genaug_torch.weak_views import WeakView
from genaug_torch.workers import seed_worker

__all__ = [
    "EmaTeacher",
    "EncodeRatioDataset",
    "LabeledOutput",
    "MixedDataset",
    "OutputReader",
    "Regularizer",
    "SemiSupervisedStep",
    "SetLoss",
    "StoreDataset",
    "StrongView",
    "UnlabeledImages",
    "UnlabeledStreams",
    "WeakView",
    "encode_ratio_at",
    "project_queries",
    "seed_worker",
    "supervised_loss",
    "to_set_targets",
    "unlabeled_loss",
]
