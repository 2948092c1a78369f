"""The contract of mixers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from genaug.batch import PIXELS, Batch
from genaug.errors import SampleError
from genaug.interfaces import Mixer
from genaug.predictions import Predictions, SoftTargets
from genaug.rng import Rng
from genaug.testing.data import global_random_state

_SCALE = 65536  # the colour of pixel number n is n / 65536: exact in float32, and in [0, 1]


class MixerContract(ABC):
    """Inherit, implement `make_mixer`, and pytest runs every check.

    Every pixel of the batches has a colour of its own, so that its origin can be read off a result.

    Example:
        class TestMyMixer(MixerContract):
            def make_mixer(self):
                return MyMixer(probability=1.0)
    """

    #: Number of classes K.
    classes = 5
    #: ``(height, width)`` of the images.
    size: tuple[int, int] = (32, 40)
    #: Samples of a batch.
    count = 4
    ignore_index = 255

    @abstractmethod
    def make_mixer(self) -> Mixer:
        """Return a fresh mixer for `classes` classes."""

    def batch(self) -> Batch:
        """Return unlabelled images with pseudo-labels, weights, padding and predictions; some labels are ignored."""
        return self._numbered(1)

    def partner(self) -> Batch | None:
        """Return what the mixer's attribute `partner` asks for."""
        kind = self.make_mixer().partner
        if kind == "none":
            return None
        made = self._numbered(1 + self.count * self.size[0] * self.size[1])
        return made if kind == "unlabeled" else replace(made, weights=None, predictions=None, soft=None)

    def _numbered(self, first: int) -> Batch:
        number = first + torch.arange(self.count * self.size[0] * self.size[1]).view(self.count, *self.size)
        logits = torch.stack([(number * (c + 2) % 13).float() / 4 for c in range(self.classes)], 1)
        return Batch(
            (number / _SCALE).unsqueeze(1).repeat(1, 3, 1, 1),
            targets=self._target(number),
            weights=(number % 11).float() / 11,
            valid=self._valid(number),
            predictions=Predictions(logits, "logits"),
            soft=SoftTargets(logits.log_softmax(1), torch.zeros(self.classes)),
        )

    def _target(self, number: Tensor) -> Tensor:
        classes = number // 3 % self.classes
        return torch.where(number % 17 == 0, self.ignore_index, classes)

    def _valid(self, number: Tensor) -> Tensor:
        return number % self.size[1] != 0  # one column of padding

    def mix(self, batch: Batch, partner: Batch | None, seed: int = 0) -> Batch:
        """Ask a fresh mixer."""
        return self.make_mixer().mix(batch, partner, rng=Rng(seed).child("contract"))

    def test_the_result_is_a_sound_batch(self) -> None:
        """Sizes stay, numbers are finite, weights are not negative, labels are classes or ignored."""
        mixed = self.mix(self.batch(), self.partner())
        assert mixed.images.shape[1:] == (3, *self.size)
        assert len(mixed) >= 1
        assert bool(torch.isfinite(mixed.images).all())
        assert mixed.targets is not None, "the labels were lost"
        known = (mixed.targets >= 0) & (mixed.targets < self.classes)
        assert bool((known | (mixed.targets == self.ignore_index)).all())
        assert mixed.targets.dtype == torch.int64
        if mixed.weights is not None:
            assert bool((torch.isfinite(mixed.weights) & (mixed.weights >= 0)).all())

    def test_labels_and_padding_travel_with_their_pixels(self) -> None:
        """A pixel that was copied has its own label, or is ignored; padding never becomes valid."""
        for seed in range(4):
            mixed = self.mix(self.batch(), self.partner(), seed)
            number = (mixed.images[:, 0] * _SCALE).round().long()
            exact = (mixed.images == (number / _SCALE).unsqueeze(1)).all(1)
            copied = exact & (number >= 1) & (number <= 2 * self.count * self.size[0] * self.size[1])
            assert mixed.targets is not None
            assert bool((mixed.targets == self._target(number))[copied & (mixed.targets != self.ignore_index)].all())
            assert mixed.valid is not None, "the padding was lost"
            assert not bool((mixed.valid & ~self._valid(number))[copied].any())

    def test_the_same_rng_gives_the_same_batch(self) -> None:
        """No hidden randomness."""
        assert_equal_batches(self.mix(self.batch(), self.partner()), self.mix(self.batch(), self.partner()))

    def test_a_sample_depends_on_its_number_and_not_on_its_batch(self) -> None:
        """Two processes with half of the batch each do what one does with the whole (`Batch.first`)."""
        batch, partner = replace(self.batch(), first=40), self.partner()
        if partner is not None:  # whichever donor is drawn, it is the same image
            partner = partner.map(lambda value: value[:1].repeat(self.count, *[1] * (value.ndim - 1)))
        whole = self.mix(batch, partner).images
        parts = []
        for rows in (slice(0, 1), slice(1, self.count)):
            own = replace(batch.map(lambda value, rows=rows: value[rows]), first=40 + rows.start)  # type: ignore[misc]
            other = None if partner is None else partner.map(lambda value, rows=rows: value[rows])  # type: ignore[misc]
            parts.append(self.mix(own, other).images)
        assert torch.equal(torch.cat(parts), whole)

    def test_inputs_and_global_random_state_stay_untouched(self) -> None:
        """The trainer goes on with both."""
        batch, partner, before = self.batch(), self.partner(), global_random_state()
        self.mix(batch, partner)
        assert global_random_state() == before
        assert_equal_batches(batch, self.batch())
        fresh = self.partner()
        if partner is not None and fresh is not None:
            assert_equal_batches(partner, fresh)

    def test_half_precision_images_stay_half_precision(self) -> None:
        """Trainers under autocast or with half-precision inputs."""
        partner = self.partner()
        half = [None if b is None else replace(b, images=b.images.half()) for b in (self.batch(), partner)]
        assert half[0] is not None
        assert self.mix(half[0], half[1]).images.dtype == torch.float16

    def test_a_single_sample_is_enough(self) -> None:
        """Batches of one are common where images are large."""
        partner = self.partner()
        one = [None if b is None else b.map(lambda value: value[:1]) for b in (self.batch(), partner)]
        assert one[0] is not None
        assert len(self.mix(one[0], one[1])) >= 1

    def test_a_bare_batch_is_mixed_or_refused_with_a_reason(self) -> None:
        """Images alone, and targets where the mixer asks for them: what else it needs, a `SampleError` names."""
        mixer, partner = self.make_mixer(), self.partner()
        batch = Batch(self.batch().images, targets=self.batch().targets if mixer.needs_targets else None)
        bare = None if partner is None else Batch(partner.images, targets=partner.targets)
        with suppress(SampleError):
            assert mixer.mix(batch, bare, rng=Rng(0)).images.shape[1:] == batch.images.shape[1:]


def assert_equal_batches(first: Batch, second: Batch) -> None:
    """Assert that two batches hold the same images and the same values per pixel."""
    assert torch.equal(first.images, second.images)
    for name in PIXELS:
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        assert one is None or torch.equal(one, other), name
    if first.predictions is not None and second.predictions is not None:
        assert torch.equal(first.predictions.values, second.predictions.values)
