"""The contract of labelers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch

from genaug.interfaces import PseudoLabeler
from genaug.predictions import Kind, Predictions, PseudoTargets
from genaug.testing.data import global_random_state


class PseudoLabelerContract(ABC):
    """Inherit, implement `make_labeler`, and pytest runs every check.

    Example:
        class TestMyLabeler(PseudoLabelerContract):
            def make_labeler(self):
                return MyLabeler(threshold=0.8)
    """

    #: Number of classes K.
    classes = 5
    #: ``(height, width)`` of the predictions.
    size: tuple[int, int] = (16, 24)
    #: What the numbers mean in the predictions that it is shown; see `genaug.predictions.Predictions`.
    kinds: tuple[Kind, ...] = ("logits", "log_probs", "probs")
    ignore_index = 255

    @abstractmethod
    def make_labeler(self) -> PseudoLabeler:
        """Return a fresh labeler for `classes` classes."""

    def predictions(self, kind: Kind, count: int = 3) -> Predictions:
        """Return random predictions float32 ``[count, K, H, W]``, sure in some pixels and not in others."""
        generator = torch.Generator().manual_seed(4)
        logits = 4 * torch.randn(count, self.classes, *self.size, generator=generator)
        made = Predictions(logits, "logits", image_confidence=torch.linspace(0.8, 1, count))
        values = {"logits": logits, "log_probs": made.log_probs(), "probs": made.probs(), "scores": 2 * made.probs()}
        return replace(made, values=values[kind], kind=kind)

    def label(self, predictions: Predictions, valid: torch.Tensor | None = None) -> PseudoTargets:
        """Ask a fresh labeler."""
        return self.make_labeler().label(predictions, valid=valid, ignore_index=self.ignore_index)

    def test_targets_are_classes_and_weights_are_finite(self) -> None:
        """Hard targets int64, weights float32 and not negative, no weight without a label; soft targets sum to 1."""
        for kind in self.kinds:
            predictions = self.predictions(kind)
            targets = self.label(predictions)
            self.check(targets, len(predictions.values))
            assert bool((targets.weights > 0).any()), "nothing at all was labelled"

    def check(self, targets: PseudoTargets, count: int) -> None:
        """Assert the form of an answer for `count` images."""
        shape = (count, *self.size)
        labelled = targets.hard != self.ignore_index
        assert (targets.hard.dtype, tuple(targets.hard.shape)) == (torch.int64, shape)
        assert bool(((targets.hard >= 0) & (targets.hard < self.classes))[labelled].all())
        assert (targets.weights.dtype, tuple(targets.weights.shape)) == (torch.float32, shape)
        assert bool((torch.isfinite(targets.weights) & (targets.weights >= 0)).all())
        assert bool((targets.weights[~labelled] == 0).all())
        if targets.soft is not None:
            counted = targets.soft.dense().movedim(1, -1)[targets.weights > 0]
            torch.testing.assert_close(counted.sum(-1), torch.ones(len(counted)), rtol=0, atol=1e-4)

    def test_no_gradient_flows(self) -> None:
        """A teacher is not trained by its own labels."""
        predictions = self.predictions(self.kinds[0])
        targets = self.label(replace(predictions, values=predictions.values.requires_grad_()))
        assert not targets.weights.requires_grad
        assert targets.soft is None or not targets.soft.dense().requires_grad

    def test_equal_predictions_give_equal_targets(self) -> None:
        """No hidden randomness."""
        for kind in self.kinds:
            assert_equal_targets(self.label(self.predictions(kind)), self.label(self.predictions(kind)))

    def test_predictions_and_global_random_state_stay_untouched(self) -> None:
        """The trainer goes on with both."""
        for kind in self.kinds:
            predictions, before = self.predictions(kind), global_random_state()
            self.label(predictions)
            assert global_random_state() == before
            assert torch.equal(predictions.values, self.predictions(kind).values)

    def test_padding_and_broken_pixels_say_nothing_and_change_no_other_pixel(self) -> None:
        """What padding holds, NaN included, is no matter; such pixels are ignored with weight 0."""
        predictions = self.predictions(self.kinds[0])
        valid = torch.ones(len(predictions.values), *self.size, dtype=torch.bool)
        valid[:, -3:] = False
        valid[0, :2, :5] = False
        spoiled = torch.where(valid.unsqueeze(1), predictions.values, torch.nan)
        targets, others = (
            self.label(replace(predictions, values=values), valid=valid) for values in (predictions.values, spoiled)
        )
        assert bool((targets.hard[~valid] == self.ignore_index).all())
        assert bool((targets.weights[~valid] == 0).all())
        assert_equal_targets(targets, others)

    def test_nothing_valid_is_no_error(self) -> None:
        """A batch may be padding all over; its sums must not become NaN."""
        predictions = self.predictions(self.kinds[0])
        targets = self.label(predictions, valid=torch.zeros(len(predictions.values), *self.size, dtype=torch.bool))
        assert bool((targets.hard == self.ignore_index).all())
        assert bool((targets.weights == 0).all())

    def test_a_single_image_is_enough(self) -> None:
        """Batches of one are common where images are large."""
        self.check(self.label(self.predictions(self.kinds[0], count=1)), 1)

    def test_half_precision_is_computed_in_float32(self) -> None:
        """Under autocast teachers answer in half precision, which is too coarse for thresholds and sums."""
        predictions = self.predictions(self.kinds[0])
        half = predictions.values.bfloat16()
        targets, expected = (self.label(replace(predictions, values=values)) for values in (half, half.float()))
        assert_equal_targets(targets, expected)

    def test_the_ignore_index_is_the_callers(self) -> None:
        """Another one changes the number of ignored pixels and nothing else."""
        predictions = self.predictions(self.kinds[0])
        usual = self.label(predictions)
        other = self.make_labeler().label(predictions, ignore_index=200)
        assert torch.equal(usual.weights, other.weights)
        assert torch.equal(usual.hard.masked_fill(usual.hard == self.ignore_index, 200), other.hard)

    def test_the_teacher_is_asked_for_predictions_of_the_images_size(self) -> None:
        """`predict` may ask several times, scaled or mirrored; the answer fits the images, and they stay untouched."""
        generator = torch.Generator().manual_seed(5)
        images = torch.rand(2, 3, *self.size, generator=generator)
        colours = torch.randn(self.classes, 3, generator=generator)
        before, kind = images.clone(), self.kinds[0]

        def teacher(view: torch.Tensor) -> Predictions:
            logits = torch.einsum("kc,bchw->bkhw", colours.to(view), view)
            made = Predictions(logits, "logits")
            values = {"log_probs": made.log_probs, "probs": made.probs, "scores": made.probs}
            return Predictions(values[kind]() if kind in values else logits, kind, torch.full((len(view),), 0.9))

        predictions = self.make_labeler().predict(teacher, images)
        assert tuple(predictions.values.shape) == (2, self.classes, *self.size)
        assert bool(predictions.finite().all())
        assert torch.equal(images, before)


def assert_equal_targets(first: PseudoTargets, second: PseudoTargets) -> None:
    """Assert that two answers are the same where they count."""
    assert torch.equal(first.hard, second.hard)
    assert torch.equal(first.weights, second.weights)
    assert (first.soft is None) == (second.soft is None)
    if first.soft is not None and second.soft is not None:
        counted = (first.weights > 0).unsqueeze(1)
        assert torch.equal(first.soft.dense().where(counted, 0), second.soft.dense().where(counted, 0))
