"""The writer ``huggingface``: parquet files with pictures in them, a card, class names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from genaug.export import CLASSES, SampleSet
from genaug.store.files import encode_mask
from genaug.types import Sample
from genaug_formats.writers import ShardWriter

_GROUP = 100  # rows that are in memory at once, and that a reader of one row must fetch


class HuggingFaceWriter(ShardWriter):
    """A folder that ``datasets.load_dataset`` opens, and that can be uploaded as it is.

    Rows have ``image``, ``mask`` (8-bit gray PNG whose values are class ids), ``id``. Class names and ignore index
    stand once for the whole set: in ``id2label.json``, ``classes.json``, the card's header (``genaug``) and the parquet
    files' schema (key ``genaug``).
    """

    def write(self, samples: Iterator[Sample], folder: Path, what: SampleSet) -> None:
        """Write all samples into `folder`."""
        (folder / "data").mkdir()
        features = datasets.Features(
            {"image": datasets.Image(), "mask": datasets.Image(), "id": datasets.Value("string")}
        )
        about = {"labels": what.labels.to_dict(), "synthetic": what.synthetic}
        schema = features.arrow_schema
        schema = schema.with_metadata({**schema.metadata, b"genaug": json.dumps(about).encode()})
        shards = -(-len(what) // self.samples_per_shard)
        for number in range(shards):
            place = folder / "data" / f"{self.split}-{number:05d}-of-{shards:05d}.parquet"
            with pq.ParquetWriter(place, schema) as file:
                left = self.samples_per_shard
                while left > 0 and (rows := [self._row(s, what) for s in islice(samples, min(left, _GROUP))]):
                    file.write_table(pa.Table.from_pylist(rows, schema=schema))
                    left -= len(rows)
        id2label = {str(i): name for i, name in what.labels.names.items()}
        (folder / "id2label.json").write_text(json.dumps(id2label, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (folder / "README.md").write_text(self._card(what, features), "utf-8")

    def _row(self, sample: Sample, what: SampleSet) -> dict[str, Any]:
        assert sample.mask is not None
        return {
            "image": {"bytes": self.picture(sample, what), "path": f"{sample.id}.{self.image_format}"},
            "mask": {"bytes": encode_mask(sample.mask), "path": f"{sample.id}.png"},
            "id": sample.id,
        }

    def _card(self, what: SampleSet, features: datasets.Features) -> str:
        """Return the dataset card; without a license, which nobody but the owner can choose."""
        header = {
            "pretty_name": what.title,
            "task_categories": ["image-segmentation"],
            "tags": ["genaug", *(["synthetic"] if what.synthetic else [])],
            "configs": [
                {
                    "config_name": "default",
                    "data_files": [{"split": self.split, "path": f"data/{self.split}-*"}],
                }
            ],
            "dataset_info": {
                "features": features._to_yaml_list(),
            },
            "genaug": what.labels.to_dict(),
        }
        origin = "The images were made by a model; each file says so." if what.synthetic else ""
        classes = "\n".join(f"| {i} | {name} |" for i, name in what.labels.names.items())
        return f"""---
{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---

# {what.title}

{len(what)} images with masks for semantic segmentation. {origin}
A mask is an 8-bit gray PNG whose values are class ids; {what.labels.ignore_index} means "not labelled".
The same table is in `id2label.json` and, for genaug, in `{CLASSES}`.

| id | class |
|---|---|
{classes}
"""
