"""The contract of predictors."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from genaug.interfaces import Predictor


class PredictorContract(ABC):
    """Inherit, implement `make_predictor`, and pytest runs every check.

    Example:
        class TestMyPredictor(PredictorContract):
            classes = 21

            def make_predictor(self):
                return MyPredictor("weights/")
    """

    #: Number of channels K that the predictor returns.
    classes: int
    #: ``(height, width)`` of the images it is shown; give other sizes if it accepts few.
    sizes: tuple[tuple[int, int], ...] = ((32, 48), (33, 47))

    @abstractmethod
    def make_predictor(self) -> Predictor:
        """Return a ready predictor."""

    def images(self, count: int, size: tuple[int, int]) -> torch.Tensor:
        """Return random images float32 ``[count, 3, H, W]`` in ``[0, 1]``."""
        return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))

    def test_is_a_predictor(self) -> None:
        """It can be called."""
        assert isinstance(self.make_predictor(), Predictor)

    def test_images_become_finite_logits(self) -> None:
        """One channel per class, at the images' size or a lower one."""
        predictor = self.make_predictor()
        for size in self.sizes:
            logits = predictor(self.images(2, size))
            assert logits.shape[:2] == (2, self.classes)
            assert logits.ndim == 4
            assert 1 <= logits.shape[2] <= size[0]
            assert 1 <= logits.shape[3] <= size[1]
            assert logits.is_floating_point()
            assert bool(torch.isfinite(logits).all())

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        """No batch statistics: the model is in evaluation mode."""
        predictor = self.make_predictor()
        images = self.images(3, self.sizes[0])
        with torch.inference_mode():
            together = predictor(images)
            alone = torch.cat([predictor(image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)

    def test_equal_images_give_equal_logits(self) -> None:
        """No dropout, and no state that a call leaves behind."""
        predictor = self.make_predictor()
        images = self.images(1, self.sizes[0])
        with torch.inference_mode():
            first = predictor(images)
            predictor(self.images(2, self.sizes[0]) * 0.5)
            assert torch.equal(first, predictor(images))

    def test_images_stay_untouched(self) -> None:
        """Normalising in place would spoil the caller's batch."""
        images = self.images(1, self.sizes[0])
        before = images.clone()
        self.make_predictor()(images)
        assert torch.equal(images, before)

    def test_colours_matter(self) -> None:
        """Images in ``[0, 1]`` are told apart: no hidden division by 255 a second time."""
        predictor = self.make_predictor()
        dark, bright = (torch.full((1, 3, *self.sizes[0]), v) for v in (0.1, 0.9))
        with torch.inference_mode():
            assert float((predictor(dark) - predictor(bright)).abs().max()) > 1e-4
