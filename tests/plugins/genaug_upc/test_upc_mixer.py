"""The mixer `upc`: what is pasted where, with which donor, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug import Rng
from genaug.batch import Batch
from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions, SoftTargets
from genaug_upc.donors import choose_donor, choose_donors, donor_orders
from genaug_upc.functional import entropy_map, patch_masks, patch_ranks, patch_scores, wrong_map
from genaug_upc.mixer import UncertaintyPatchCutMix

CLASSES = 6
RNG = Rng(11).child("upc")
FIELDS = ("images", "targets", "weights", "valid", "provenance")


def make(count: int, size: tuple[int, int] = (32, 32), *, seed: int = 0, first: int = 0) -> Batch:
    """Return a batch whose images say which source, image and pixel a value comes from."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, CLASSES, *size, generator=generator) * 3
    numbers = torch.arange(count * size[0] * size[1]).view(count, 1, *size) + 1_000_000 * seed
    return Batch(
        numbers.expand(-1, 3, -1, -1).float(),
        targets=numbers[:, 0] % CLASSES,
        weights=torch.rand(count, *size, generator=generator),
        predictions=Predictions(logits, "logits"),
        first=first,
    )


def donors(count: int, size: tuple[int, int] = (32, 32)) -> Batch:
    return replace(make(count, size, seed=1), predictions=None, weights=None)


def rows(batch: Batch, wanted: slice) -> Batch:
    return replace(batch.map(lambda value: value[wanted]), first=batch.first + wanted.start)


def assert_equal(one: Batch, other: Batch) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@given(st.integers(8, 60), st.integers(8, 60), st.integers(2, 8), st.sampled_from(["sample", "expand"]))
@settings(max_examples=25)
def test_every_pixel_and_its_label_come_from_one_place(height: int, width: int, grid: int, ras: str) -> None:
    ks = sorted({0, grid, grid**2 - 1})
    batch, partner = make(3, (height, width)), donors(4, (height, width))
    mixed = UncertaintyPatchCutMix(grid=grid, ks=ks, ras=ras)(batch, partner, rng=RNG)
    views = len(ks) if ras == "expand" else 1
    assert len(mixed) == 3 * views
    numbers = mixed.images.long()
    assert (numbers == numbers[:, :1]).all()
    numbers = numbers[:, 0]
    pasted = numbers >= 1_000_000
    assert torch.equal(mixed.provenance, pasted.long())
    assert torch.equal(mixed.targets, numbers % CLASSES)
    pixels = torch.arange(height * width).view(height, width)
    assert ((numbers - 1_000_000 * pasted) % (height * width) == pixels).all()  # the same place
    for result in range(len(mixed)):
        own = result // views  # image-major
        outside = ~pasted[result]
        assert torch.equal(mixed.images[result][:, outside], batch.images[own][:, outside])
        assert torch.equal(mixed.weights[result][outside], batch.weights[own][outside])
        assert (mixed.weights[result][~outside] == 1).all()
        sources = {n // (height * width) for n in (numbers[result][~outside] - 1_000_000).tolist()}
        assert len(sources) <= 1  # one donor
    assert torch.equal(mixed.predictions.values, batch.predictions.values.repeat_interleave(views, 0))


@pytest.mark.parametrize("size", [321, 513, 518, 721, 769])
def test_the_masks_are_those_of_the_equations_at_the_papers_crops(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn(1, 2, size, size, generator=generator)
    images = torch.zeros(1, 3, size, size)
    batch = Batch(images, targets=logits.argmax(1), predictions=Predictions(logits, "logits"))
    partner = Batch(images + 1, targets=logits.argmin(1))
    mixed = UncertaintyPatchCutMix(ras="expand")(batch, partner, rng=RNG)
    ranks = patch_ranks(patch_scores(entropy_map(batch.predictions), 4))
    for result, k in enumerate((2, 3, 5)):
        mask = patch_masks((ranks < k).view(1, 4, 4), (size, size))[0]
        assert torch.equal(mixed.provenance[result].bool(), mask)
        assert torch.equal(mixed.images[result, 0].bool(), mask)
        assert torch.equal(mixed.targets[result], torch.where(mask, partner.targets[0], batch.targets[0]))


def test_pasting_an_image_into_itself_or_twice_changes_nothing() -> None:
    batch = make(2)
    mixer = UncertaintyPatchCutMix(ras="expand")
    same = replace(rows(batch, slice(0, 1)), predictions=None, weights=None)
    mixed = mixer(rows(batch, slice(0, 1)), same, rng=RNG)
    assert torch.equal(mixed.images, batch.images[[0, 0, 0]])
    assert torch.equal(mixed.targets, batch.targets[[0, 0, 0]])
    plain = replace(batch, predictions=None)
    mixture = mixer.plan(entropy_map(batch.predictions), donors(3), rng=RNG)
    once = mixture.paste(plain, donors(3))
    twice = replace(mixture, sources=torch.arange(len(once))).paste(once, donors(3))
    assert_equal(once, twice)


def test_a_sample_does_not_depend_on_its_batch_and_nothing_is_changed() -> None:
    batch, partner = make(5, first=7), donors(4)
    before, partner_before = batch.map(torch.clone), partner.map(torch.clone)
    for score in ("entropy", "margin", "random"):
        for ras, views in (("sample", 1), ("expand", 3)):
            mixer = UncertaintyPatchCutMix(ras=ras, score=score)
            whole = mixer(batch, partner, rng=RNG)
            assert_equal(whole, mixer(batch, partner, rng=RNG))
            for start, stop in ((0, 2), (2, 5)):
                part = mixer(rows(batch, slice(start, stop)), partner, rng=RNG)
                assert_equal(part, rows(whole, slice(start * views, stop * views)))
                assert part.first == (7 + start) * views
    assert_equal_to_before(batch, before)
    assert_equal_to_before(partner, partner_before)
    other = UncertaintyPatchCutMix(ras="expand")(batch, partner, rng=Rng(12))
    assert not torch.equal(other.images, whole.images)


def assert_equal_to_before(batch: Batch, before: Batch) -> None:
    for name in ("images", "targets", "weights", "valid"):
        one, other = getattr(batch, name), getattr(before, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    if before.predictions is not None:
        assert torch.equal(batch.predictions.values, before.predictions.values)


def test_global_random_state_is_neither_used_nor_changed() -> None:
    state = torch.get_rng_state()
    one = UncertaintyPatchCutMix()(make(2), donors(3), rng=RNG)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert_equal(one, UncertaintyPatchCutMix()(make(2), donors(3), rng=RNG))
    torch.set_rng_state(state)


def test_one_number_of_patches_per_image_and_every_number_in_turn() -> None:
    batch, partner = make(60, (8, 8)), donors(4, (8, 8))
    counts = UncertaintyPatchCutMix()(batch, partner, rng=RNG).provenance.sum((1, 2)) // 4
    shares = {k: int((counts == k).sum()) for k in (2, 3, 5)}
    assert sum(shares.values()) == 60
    assert min(shares.values()) >= 10
    expanded = UncertaintyPatchCutMix(ras="expand")(batch, partner, rng=RNG).provenance.sum((1, 2)) // 4
    assert expanded.tolist() == [2, 3, 5] * 60


@pytest.mark.parametrize(("views", "count"), [(3, 3), (3, 8), (3, 2), (3, 1), (5, 2)])
def test_donors_of_an_image_differ_as_long_as_there_are_enough(views: int, count: int) -> None:
    mixer = UncertaintyPatchCutMix(ks=[2] * views, ras="expand")
    chosen = mixer.plan(torch.rand(20, 16, 16), donors(count, (16, 16)), rng=RNG).donors.view(20, views)
    for row in chosen.tolist():
        assert len(set(row)) == min(views, count)
        assert max(row.count(d) for d in row) == math.ceil(views / count)
    if count > 1:
        assert len({tuple(row) for row in chosen.tolist()}) > 1
    assert set(chosen.flatten().tolist()) == set(range(count))


@given(st.integers(1, 14), st.integers(1, 5), st.integers(0, 200), st.floats(0, 1))
@settings(max_examples=40)
def test_donors_equal_a_plain_loop(count: int, views: int, seed: int, share: float) -> None:
    orders = torch.stack([donor_orders(count, views, Rng(seed).child(i)) for i in range(3)])
    unfit = torch.rand(3, views, count, generator=torch.Generator().manual_seed(seed)) < share
    chosen = choose_donors(orders, unfit)
    for b in range(3):
        taken: set[int] = set()
        for v in range(views):
            if v % count == 0:
                taken = set()
            candidates = [d for d in orders[b, v].tolist() if d not in taken][:9]  # one draw, 8 more
            fit = [d for d in candidates if not unfit[b, v, d]]
            expected = (fit or candidates)[0]
            assert chosen[b, v] == expected
            assert choose_donor(orders[b, v].tolist(), taken, lambda d, b=b, v=v: bool(unfit[b, v, d])) == expected
            taken.add(expected)


def test_a_donor_whose_patch_is_mostly_ignored_is_drawn_again() -> None:
    uncertainty = torch.zeros(30, 16, 16)
    uncertainty[:, :4, 4:8] = 1.0  # patch 1 is chosen
    partner = donors(4, (16, 16))
    partner.targets[0, :4, 4:8] = 255
    partner.targets[1, :4, 4:8].flatten()[:8] = 255
    partner.targets[1, :2, 4:8] = 255  # half: not more than half
    valid = torch.ones(4, 16, 16, dtype=torch.bool)
    valid[2, :3, 4:8] = False
    mixer = UncertaintyPatchCutMix(ks=[1])
    chosen = set(mixer.plan(uncertainty, replace(partner, valid=valid), rng=RNG).donors.tolist())
    assert chosen == {1, 3}
    elsewhere = partner.map(torch.clone)
    elsewhere.targets[:] = 0
    elsewhere.targets[:, 8:] = 255  # not in the chosen patch
    assert set(mixer.plan(uncertainty, elsewhere, rng=RNG).donors.tolist()) == {0, 1, 2, 3}
    nothing = partner.map(torch.clone)
    nothing.targets[:] = 255
    mixture = mixer.plan(uncertainty, nothing, rng=RNG)
    assert set(mixture.donors.tolist()) == {0, 1, 2, 3}  # accepted all the same
    pasted = mixture.paste(replace(make(30, (16, 16)), predictions=None), nothing)
    assert (pasted.targets[mixture.mask] == 255).all()  # and its ignored pixels stay ignored


def test_no_patch_is_the_identity_and_all_patches_are_a_labelled_image_with_a_warning() -> None:
    batch, partner = make(2), donors(2)
    mixed = UncertaintyPatchCutMix(ks=[0])(batch, partner, rng=RNG)
    for name in ("images", "targets", "weights"):
        assert torch.equal(getattr(mixed, name), getattr(batch, name))
    with pytest.warns(UserWarning, match="replaces whole images"):
        mixer = UncertaintyPatchCutMix(ks=[16])
    mixed = mixer(batch, partner, rng=RNG)
    assert mixed.provenance.all()
    assert (mixed.images >= 1_000_000).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": [17]}, "17 patches of 4x4"),
        ({"ks": [-1]}, "-1 patches of 4x4"),
        ({"ks": []}, "ks"),
        ({"grid": 0}, "grid"),
        ({"grid": 2, "ks": [2, 5]}, "Allowed: 0 to 4"),
        ({"ras": "both"}, "ras"),
        ({"score": "oracle"}, "score"),
        ({"reduce": "max"}, "reduce"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UncertaintyPatchCutMix(**options)


def test_what_is_missing_is_named() -> None:
    mixer, batch, partner = UncertaintyPatchCutMix(), make(2), donors(3)
    with pytest.raises(SampleError, match="a batch without predictions"):
        mixer(replace(batch, predictions=None), partner, rng=RNG)
    with pytest.raises(SampleError, match="a batch without targets"):
        mixer(replace(batch, targets=None), partner, rng=RNG)
    with pytest.raises(SampleError, match="no partner"):
        mixer(batch, rng=RNG)
    with pytest.raises(SampleError, match="a partner without targets"):
        mixer(batch, replace(partner, targets=None), rng=RNG)
    with pytest.raises(SampleError, match="a partner without targets"):
        mixer.plan(torch.zeros(2, 32, 32), replace(partner, targets=None), rng=RNG)
    with pytest.raises(SampleError, match="no labelled images"):
        mixer(batch, partner.map(lambda value: value[:0]), rng=RNG)
    with pytest.raises(SampleError, match="equal shapes"):
        mixer(batch, donors(3, (32, 31)), rng=RNG)
    with pytest.raises(SampleError, match="of the donors' size"):
        mixer.plan(torch.zeros(2, 32, 31), partner, rng=RNG)
    with pytest.raises(SampleError, match="an empty batch"):
        mixer(batch.map(lambda value: value[:0]), partner, rng=RNG)
    for score in ("entropy", "random"):
        with pytest.raises(SampleError, match="a grid of 9 patches over 8 pixels"):
            UncertaintyPatchCutMix(grid=9, score=score)(make(2, (8, 20)), donors(3, (8, 20)), rng=RNG)


def test_labels_that_the_teacher_has_no_class_for_are_refused() -> None:
    mixer, batch, partner = UncertaintyPatchCutMix(), make(2), donors(3)
    partner.targets[1, 3, 3] = 255
    mixer(batch, partner, rng=RNG)
    for bad in (CLASSES, -1, 254):
        partner.targets[2, 0, 5] = bad
        with pytest.raises(SampleError, match=f"label {bad} .* 0 to 5"):
            mixer(batch, partner, rng=RNG)
    partner.targets[2, 0, 5] = 254
    UncertaintyPatchCutMix(ignore_index=254)(batch, replace(partner, targets=partner.targets % 255), rng=RNG)


def test_unlabelled_pixels_may_all_be_ignored_and_padding_is_not_uncertain() -> None:
    batch, partner = make(1), donors(2)
    batch = replace(batch, targets=torch.full_like(batch.targets, 255))
    mixed = UncertaintyPatchCutMix(ks=[3])(batch, partner, rng=RNG)
    assert (mixed.targets == 255).sum() == 13 * 64
    valid = torch.zeros(1, 32, 32, dtype=torch.bool)
    valid[:, :8, :24] = True  # patches 0, 1 and 2
    mixed = UncertaintyPatchCutMix(ks=[3])(replace(batch, valid=valid), partner, rng=RNG)
    assert torch.equal(mixed.provenance.bool(), valid)
    mixed = UncertaintyPatchCutMix(ks=[5])(replace(batch, valid=valid), partner, rng=RNG)
    assert mixed.provenance[0, 4, 28] == mixed.provenance[0, 12, 4] == 1  # then by number
    assert mixed.valid[0, 4, 28]  # the donor's pixels are real
    assert not mixed.valid[0, 31, 31]


def test_a_certain_teacher_still_gives_exactly_k_patches() -> None:
    batch = make(1)
    logits = torch.zeros_like(batch.predictions.values)
    logits[:, 0] = 1e4
    mixed = UncertaintyPatchCutMix(ks=[5])(
        replace(batch, predictions=Predictions(logits, "logits")), donors(1), rng=RNG
    )
    expected = patch_masks((torch.arange(16) < 5).view(1, 4, 4), (32, 32))
    assert torch.equal(mixed.provenance.bool(), expected)


def test_half_precision_predictions_and_soft_targets() -> None:
    batch, partner = make(2), donors(3)
    half = Predictions(batch.predictions.values.half(), "logits")
    full = Predictions(batch.predictions.values.half().float(), "logits")
    mixer = UncertaintyPatchCutMix(ras="expand")
    one = mixer(replace(batch, predictions=half), partner, rng=RNG)
    assert_equal(one, mixer(replace(batch, predictions=full), partner, rng=RNG))
    log_probs = batch.predictions.log_probs()
    soft = mixer(replace(batch, soft=SoftTargets(log_probs, torch.zeros(CLASSES))), partner, rng=RNG)
    dense, pasted = soft.soft.dense().movedim(1, -1), soft.provenance.bool()
    one_hot = torch.nn.functional.one_hot(soft.targets, CLASSES).float()
    assert torch.equal(dense[pasted], one_hot[pasted])  # ground truth is certain
    own = log_probs.exp().movedim(1, -1).repeat_interleave(3, 0)
    torch.testing.assert_close(dense[~pasted], own[~pasted])


def test_random_patches_are_chosen_equally_often() -> None:
    k, trials = 3, 2000
    batch = replace(make(trials, (4, 4)), predictions=None)
    mixed = UncertaintyPatchCutMix(ks=[k], score="random")(batch, donors(2, (4, 4)), rng=RNG)
    counts = mixed.provenance.sum(0).flatten().double()
    assert counts.sum() == k * trials
    share = k / 16
    # Draws without replacement: with this factor the sum follows chi-squared with 15 degrees of freedom.
    statistic = ((counts - trials * share) ** 2).sum() / (trials * share * (1 - share)) * 15 / 16
    assert statistic < 37.70  # the 0.999 quantile
    nested = UncertaintyPatchCutMix(ks=[2, 5], ras="expand", score="random")(batch, donors(2, (4, 4)), rng=RNG)
    small, large = nested.provenance[0::2], nested.provenance[1::2]
    assert not (small & ~large & 1).any()


def test_a_plan_serves_the_oracle_and_two_networks_alike() -> None:
    one, two, partner = make(2), make(2, seed=2), donors(3)
    mixer = UncertaintyPatchCutMix(ks=[4])
    truth = torch.zeros_like(one.targets)
    predicted = truth.clone()
    predicted[:, 8:24, 8:24] = 1  # patches 5, 6, 9 and 10
    oracle = mixer.plan(wrong_map(predicted, truth), partner, rng=RNG)
    expected = torch.zeros(2, 32, 32, dtype=torch.bool)
    expected[:, 8:24, 8:24] = True
    assert torch.equal(oracle.mask, expected)
    mean = Predictions((one.predictions.probs() + two.predictions.probs()) / 2, "probs")
    plan = mixer.plan(entropy_map(mean), partner, rng=RNG, first=4)
    first, second = (plan.paste(replace(b, predictions=None), partner) for b in (one, two))
    assert torch.equal(first.provenance, second.provenance)
    assert torch.equal(
        first.images[first.provenance.bool()[:, None].expand(-1, 3, -1, -1)],
        second.images[second.provenance.bool()[:, None].expand(-1, 3, -1, -1)],
    )
    same = mixer(replace(one, predictions=mean, first=4), partner, rng=RNG)
    assert torch.equal(same.images, first.images)
    unsure = torch.zeros(1, 32, 32)
    unsure[0, 31, 31] = math.nan
    assert mixer.plan(unsure, partner, rng=RNG).mask[0, 31, 31]  # NaN counts as the largest
