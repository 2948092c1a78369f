"""genaug for hand-written PyTorch loops: stores as datasets, real and synthetic data mixed."""

from genaug_torch.mixed_dataset import MixedDataset
from genaug_torch.store_dataset import StoreDataset
from genaug_torch.workers import seed_worker

__all__ = ["MixedDataset", "StoreDataset", "seed_worker"]
