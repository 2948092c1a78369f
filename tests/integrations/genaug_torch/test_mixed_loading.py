"""Mixed data in torch's own loaders: samples of every type, collated by torch, shared out among processes."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, WeightedRandomSampler

from genaug_torch import MixedDataset

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Named(NamedTuple):
    image: torch.Tensor
    mask: torch.Tensor


@dataclass
class Own:
    image: torch.Tensor
    mask: torch.Tensor


def pair(number):
    return torch.full((3, 2, 2), float(number)), torch.full((2, 2), number)


FORMS = {
    "tuple": lambda number: pair(number),
    "dictionary": lambda number: dict(zip(("image", "mask"), pair(number), strict=True)),
    "named": lambda number: Named(*pair(number)),
    "own": lambda number: Own(*pair(number)),
}


def collate_own(items):
    return Own(torch.stack([item.image for item in items]), torch.stack([item.mask for item in items]))


def numbers(batch):
    mask = batch["mask"] if isinstance(batch, dict) else batch.mask if hasattr(batch, "mask") else batch[1]
    return mask[:, 0, 0].tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_samples_of_every_type_reach_the_loop(form, workers):
    real, made = ([FORMS[form](number) for number in numbers] for numbers in (range(6), range(100, 104)))
    dataset = MixedDataset(real, made, ratio=0.5, scheme="replace", seed=2)
    options = {"multiprocessing_context": "fork", "persistent_workers": True} if workers else {}
    loader = DataLoader(
        dataset, batch_size=3, num_workers=workers, collate_fn=collate_own if form == "own" else None, **options
    )
    for epoch in range(2):
        dataset.set_epoch(epoch)
        batches = list(loader)
        assert type(batches[0]) is (list if form == "tuple" else type(real[0]))
        expected = [dataset.locate(i) for i in range(6)]
        found = [number for batch in batches for number in numbers(batch)]
        assert found == [place + 100 if name == "synthetic" else place for name, place in expected]
        assert sum(number >= 100 for number in found) == 3


@pytest.mark.parametrize("scheme", ["append", "replace", "sample"])
def test_processes_share_an_epoch_without_overlap(scheme):
    def build():
        return MixedDataset(range(10), range(100, 106), ratio=0.6, scheme=scheme, seed=5)

    whole = build()
    for epoch in range(2):
        whole.set_epoch(epoch)
        shares = []
        for rank in range(2):
            dataset = build()  # every process has its own
            sampler = DistributedSampler(dataset, num_replicas=2, rank=rank, seed=3)
            sampler.set_epoch(epoch)
            dataset.set_epoch(epoch)
            shares += DataLoader(dataset, batch_size=None, sampler=sampler)
        assert sorted(shares) == sorted(whole[i] for i in range(len(whole)))


def test_samplers_that_weigh_items_see_real_ones_first():
    dataset = MixedDataset(range(4), range(100, 104), ratio=1.0, scheme="append")
    sampler = WeightedRandomSampler([0.0] * 4 + [1.0] * 4, 20, generator=torch.Generator().manual_seed(0))
    assert all(item >= 100 for item in DataLoader(dataset, batch_size=None, sampler=sampler))
