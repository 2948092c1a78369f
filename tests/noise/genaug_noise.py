"""A plugin for tests: a small deterministic pipeline of every kind of part, without torch."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
from pydantic import Field

from genaug.component import Component
from genaug.config import Options
from genaug.hookspecs import hookimpl
from genaug.interfaces import Filter, Generator
from genaug.sources.base import Source
from genaug.sources.survey import Remark, Survey
from genaug.types import Refused, Sample, Verdict


@hookimpl
def genaug_components():
    yield Component("source", "noise-masks", "genaug_noise:NoiseMasks", "genaug_noise:MasksOptions")
    yield Component("generator", "noise", "genaug_noise:Noise", "genaug_noise:NoiseOptions")
    yield Component("filter", "dark", "genaug_noise:Dark", "genaug_noise:DarkOptions")


class MasksOptions(Options):
    count: int = 4
    height: int = 32
    width: int = 24
    odd_every: int = Field(0, description="Every n-th mask is twice as wide.")
    problem: bool = False
    changed: str = Field("", description="File whose existence changes the first mask.")


class NoiseMasks(Source):
    """Masks of ids 1 and 4 with some ignored pixels, drawn from their number."""

    def __init__(self, options, root):
        self.options, self.root = options, root

    @classmethod
    def from_config(cls, options, context):
        return cls(options, context.root)

    def ids(self):
        return [f"m_{i}" for i in range(self.options.count)]

    def load(self, sample_id):
        number = int(sample_id[2:])
        rng = np.random.default_rng(number)
        odd = self.options.odd_every and number % self.options.odd_every == 0
        size = (self.options.height, self.options.width * (2 if odd else 1))
        mask = np.where(rng.random(size) < 0.5, 1, 4).astype(np.uint8)
        mask[0, :3] = 255
        if number == 0 and self.options.changed and (self.root / self.options.changed).exists():
            mask[5, 5] = 255
        image = np.repeat((mask * 20)[..., None], 3, axis=2).astype(np.uint8)
        return Sample(sample_id, image, mask)

    def survey(self):
        return Survey(problems=[Remark("m_0: a problem")] if self.options.problem else [])


class NoiseOptions(Options):
    images_per_mask: int = 3
    batch_size: int = 4
    delay: float = Field(0.0, description="Seconds a batch takes.")
    refuse: tuple[str, ...] = ()
    fail: str = Field("", description="File listing keys whose batch fails.")
    needs_adapter: bool = False
    square: bool = False


class Noise(Generator):
    """Noise drawn from each draw's seed; its lowest bits depend on who else is in the batch, as on a real GPU."""

    def __init__(self, options, root):
        self.options, self.root = options, root
        self.batch_size, self.samples_per_condition = options.batch_size, options.images_per_mask
        self.prepared = 0
        self.learned = None

    @classmethod
    def from_config(cls, options, context):
        return cls(options, context.root)

    # Adaptable

    @property
    def needs_adapting(self):
        return self.options.needs_adapter

    def adapted(self, folder):
        return (folder / "learned.json").exists()

    def adapt(self, samples, folder, *, labels, rng):
        for step in range(4):
            path = folder / f"step{step}.json"
            if not path.exists():
                time.sleep(self.options.delay)
                _write(path, {"value": rng.child(step).integer() % 1000 + int(samples[step % len(samples)].mask.sum())})
        _write(folder / "learned.json", {"launcher": sorted({"RANK", "WORLD_SIZE"} & set(os.environ))})
        return {"steps": 4}

    def load_adapted(self, folder):
        self.learned = json.loads((folder / "step3.json").read_text())["value"]

    # Generator

    def prepare(self, labels, *, device="cpu"):
        self.prepared += 1
        self.labels = labels

    def describe(self):
        return {"component": "noise", "learned": self.learned}

    def size_of(self, draw):
        return (0, 0) if self.options.square else draw.condition.size

    def _generate(self, draws):
        assert self.prepared == 1
        time.sleep(self.options.delay)
        keys = [d.key for d in draws]
        if self.options.fail and set((self.root / self.options.fail).read_text().split()) & set(keys):
            raise RuntimeError("this batch fails")
        together = hashlib.sha256(" ".join(keys).encode()).digest()[0] & 3
        results = []
        for draw in draws:
            if draw.key in self.options.refuse:
                results.append(Refused("told to"))
                continue
            rng = np.random.default_rng([draw.seed, self.learned or 0])
            image = rng.integers(0, 256, (*draw.condition.size, 3), dtype=np.uint8) ^ together
            meta = {"mean": np.float32(image.mean()), "name": "grün"}
            results.append(Sample(draw.key, image.astype(np.uint8), draw.condition.mask.copy(), meta))
        return results


def _write(path: Path, data) -> None:
    temp = path.with_suffix(".part")
    temp.write_text(json.dumps(data))
    temp.replace(path)


class DarkOptions(Options):
    below: float = Field(127.0, description="Images with a smaller mean are dropped.")
    ignore_row: int = Field(-1, description="Row of the mask that is not trusted.")
    ignore_rows: tuple[int, int] = Field((0, 0), description="First of the rows that are not trusted, and their end.")
    only: str = Field("", description="Key of the one sample whose `ignore_rows` are not trusted; all by default.")
    delay: float = 0.0


class Dark(Filter):
    def __init__(self, **options):
        self.options = DarkOptions(**options)
        self.context = None

    def prepare(self, context):
        assert sum(1 for _ in context.real()) > 0
        self.seen = dict(context.conditions())
        self.context = context

    def _judge(self, group):
        time.sleep(self.options.delay)
        assert np.array_equal(self.seen[group.id], group.condition)
        verdicts = []
        for sample in group.samples:
            mean = float(sample.image.mean())
            mask = None
            if self.options.ignore_row >= 0:
                mask = sample.mask.copy()
                mask[self.options.ignore_row] = self.context.labels.ignore_index
            if self.options.ignore_rows[1] and self.options.only in ("", sample.id):
                mask = sample.mask.copy()
                mask[slice(*self.options.ignore_rows)] = self.context.labels.ignore_index
            keep = mean >= self.options.below
            verdicts.append(Verdict(keep, "" if keep else f"mean {mean:.1f}", mask, {"mean": np.float32(mean)}))
        return verdicts
