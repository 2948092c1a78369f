"""ClassMix: exactly the drawn half of the partner's classes, along its outlines."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.batch import Batch
from genaug.errors import ConfigError, SampleError
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.registry import default_registry
from genaug.rng import Rng
from genaug_basics.classmix import ClassMix


def labelled(seed: int, count: int, size: tuple[int, int], classes: int, ignore: int = 255, **more) -> Batch:
    """Images that hold the number of each pixel, and random targets with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.arange(count * size[0] * size[1]).view(count, *size)
    targets = torch.randint(0, classes, (count, *size), generator=generator)
    targets[torch.rand(count, *size, generator=generator) < 0.2] = ignore
    return Batch(
        number.float().unsqueeze(1).expand(-1, 3, -1, -1), targets=targets, weights=number / number.numel(), **more
    )


@settings(max_examples=60)
@given(
    st.integers(0, 10**6), st.integers(1, 5), st.tuples(st.integers(1, 7), st.integers(1, 7)), st.integers(1, 9),
    st.sampled_from([9, 255]),
)  # fmt: skip
def test_pastes_all_pixels_of_half_of_the_partners_classes(seed, count, size, classes, ignore) -> None:
    batch = labelled(seed, count, size, classes, ignore)
    mixed = ClassMix(num_classes=9).mix(batch, rng=Rng(seed))
    for i in range(count):
        donor = count - 1 - i
        mask, partner = mixed.provenance[i].bool(), batch.targets[donor]
        present = set(partner.unique().tolist()) - {ignore}
        pasted = set(partner[mask].unique().tolist())
        assert len(pasted) == len(present) // 2
        assert pasted <= present  # never ignored pixels
        for name in pasted:
            assert mask[partner == name].all()  # whole classes
        assert torch.equal(mixed.targets[i], torch.where(mask, partner, batch.targets[i]))
        assert torch.equal(mixed.images[i], torch.where(mask, batch.images[donor], batch.images[i]))
        assert torch.equal(mixed.weights[i], torch.where(mask, batch.weights[donor], batch.weights[i]))


def test_every_half_is_equally_likely() -> None:
    targets = torch.arange(5).expand(3000, 1, 5).contiguous()  # 5 classes: 2 are drawn, in one of 10 ways
    batch = Batch(torch.zeros(3000, 1, 1, 5), targets=targets)
    mask = ClassMix(num_classes=19).mix(batch, rng=Rng(0)).provenance[:, 0]
    counts = Counter(tuple(row.nonzero().flatten().tolist()) for row in mask)
    assert set(counts) == set(itertools.combinations(range(5), 2))
    statistic = sum((count - 300) ** 2 / 300 for count in counts.values())
    assert statistic < 27.88  # chi-square, 9 degrees of freedom, 0.1 %


def test_a_sample_depends_on_its_number_and_nothing_else() -> None:
    batch, partner = labelled(0, 5, (6, 5), 8, first=7), labelled(1, 5, (6, 5), 8)
    whole = ClassMix().mix(batch, partner, rng=Rng(3)).provenance
    for start, stop in ((0, 1), (1, 4), (4, 5)):
        own = Batch(batch.images[start:stop], targets=batch.targets[start:stop], first=7 + start)
        donor = Batch(partner.images[start:stop], targets=partner.targets[start:stop])
        assert torch.equal(ClassMix().mix(own, donor, rng=Rng(3)).provenance, whole[start:stop])
    assert not torch.equal(ClassMix().mix(batch, partner, rng=Rng(4)).provenance, whole)


def test_one_image_and_ignored_images_give_nothing_new() -> None:
    one = labelled(0, 1, (4, 4), 6)
    mixed = ClassMix().mix(one, rng=Rng(0))
    assert torch.equal(mixed.images, one.images)
    assert torch.equal(mixed.targets, one.targets)
    blank = Batch(torch.zeros(2, 3, 4, 4), targets=torch.full((2, 4, 4), 255))
    assert not ClassMix().mix(labelled(0, 2, (4, 4), 6), blank, rng=Rng(0)).provenance.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images(dtype: torch.dtype) -> None:
    batch = labelled(0, 4, (5, 5), 4)
    half = Batch(torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).to(dtype), targets=batch.targets)
    mixed = ClassMix().mix(half, rng=Rng(0))
    mask = mixed.provenance.bool().unsqueeze(1)
    assert torch.equal(mixed.images, torch.where(mask, half.images.flip(0), half.images))


def test_needs_targets_of_both() -> None:
    bare, full = Batch(torch.zeros(2, 3, 4, 4)), labelled(0, 2, (4, 4), 3)
    with pytest.raises(SampleError, match="without targets"):
        ClassMix().mix(bare, rng=Rng(0))
    with pytest.raises(SampleError, match="partner without targets"):
        ClassMix().mix(full, bare, rng=Rng(0))
    with pytest.raises(ConfigError, match="0 classes"):
        ClassMix(num_classes=0)


def test_a_recipes_classes_decide_what_a_class_is(tmp_path) -> None:
    labels = LabelSpace({3: "a", 7: "b", 9: "c"}, ignore_index=0)  # channels 0, 1, 2: 0 is a class here
    mixer = BuildContext(tmp_path, labels, default_registry()).build("mixer", "classmix", {}, where="terms.0.mixer")
    targets = torch.tensor([[[0, 1, 2, 255, 254, 3]]]).expand(64, 1, 6).contiguous()
    mask = mixer.mix(Batch(torch.zeros(64, 3, 1, 6), targets=targets), rng=Rng(0)).provenance[:, 0]
    assert (mask[:, :3].sum(1) == 1).all()
    assert mask[:, :3].any(0).all()
    assert not mask[:, 3:].any()
