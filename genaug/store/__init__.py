"""SampleStore: generated samples on disk, atomic, append-only, resumable, checked."""

from genaug.store.shard import Shard
from genaug.store.store import SampleStore
from genaug.store.views import TrainingView
from genaug.store.writer import StoreWriter, open_writer

__all__ = ["SampleStore", "Shard", "StoreWriter", "TrainingView", "open_writer"]
