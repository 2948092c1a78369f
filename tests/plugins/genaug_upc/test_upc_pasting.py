"""Mixing image by image gives what the core's mixture gives."""

from __future__ import annotations

import pytest
import torch

from genaug.errors import SampleError
from genaug.mixture import Mixture
from genaug_upc.pasting import ImagewiseMixture


def test_it_equals_the_cores_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    plan = {
        "mask": torch.rand(5, 6, 7, generator=generator) < 0.4,
        "sources": torch.tensor([0, 0, 2, 1, 1]),
        "donors": torch.tensor([3, 1, 0, 0, 2]),
    }
    for middle in ((), (3,), (2, 3)):
        own, other = (torch.rand(count, *middle, 6, 7, generator=generator) for count in (3, 4))
        before = own.clone(), other.clone()
        for dtype in (torch.float32, torch.float16, torch.float64):
            one, two = own.to(dtype), other.to(dtype)
            mixed = ImagewiseMixture(**plan).apply(one, two)
            assert mixed.dtype == dtype
            assert torch.equal(mixed, Mixture(**plan).apply(one, two))
        assert torch.equal(own, before[0])
        assert torch.equal(other, before[1])
    labels = [torch.randint(0, 9, (count, 6, 7), generator=generator) for count in (3, 4)]
    assert torch.equal(ImagewiseMixture(**plan).apply(*labels), Mixture(**plan).apply(*labels))
    own = torch.rand(3, 3, 6, 7, requires_grad=True)
    ImagewiseMixture(**plan).apply(own, torch.rand(4, 3, 6, 7)).sum().backward()
    assert own.grad is not None
    for mixture in (Mixture(**plan), ImagewiseMixture(**plan)):
        with pytest.raises(SampleError, match="equal shapes but for"):
            mixture.apply(torch.rand(3, 6, 7), torch.rand(4, 6, 8))
