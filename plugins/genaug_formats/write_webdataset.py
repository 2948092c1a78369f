"""The writer ``webdataset``: tar files of samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import webdataset

from genaug.export import SampleSet
from genaug.store.files import encode_mask
from genaug.types import Sample
from genaug_formats.writers import ShardWriter


class WebDatasetWriter(ShardWriter):
    """``<split>-000000.tar`` ...: for each sample ``<number>.png``, ``<number>.mask.png`` and ``<number>.json``.

    Samples are numbered, since the library cuts names at the first dot; the JSON holds the sample's id. Equal samples
    give equal bytes.
    """

    def write(self, samples: Iterator[Sample], folder: Path, what: SampleSet) -> None:
        """Write all samples into `folder`."""
        pattern = f"{str(folder).replace('%', '%%')}/{self.split}-%06d.tar"
        with webdataset.ShardWriter(
            pattern, maxcount=self.samples_per_shard, maxsize=float("inf"), verbose=0, encoder=False, mtime=0
        ) as shards:
            for number, sample in enumerate(samples):
                assert sample.mask is not None
                about = {
                    "id": sample.id,
                    "height": sample.size[0],
                    "width": sample.size[1],
                    "synthetic": what.synthetic,
                }
                shards.write(
                    {
                        "__key__": f"{number:09d}",
                        self.image_format: self.picture(sample, what),
                        "mask.png": encode_mask(sample.mask),
                        "json": json.dumps(about, ensure_ascii=False).encode(),
                    }
                )
