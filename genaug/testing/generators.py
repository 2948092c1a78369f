"""The contract of generators."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from genaug.errors import GenaugError
from genaug.interfaces import Generator
from genaug.rng import Rng
from genaug.testing.data import LABELS, global_random_state, make_mask, make_sample
from genaug.types import Draw, Prompt, Refused, Sample

Result = Sample | Refused


class GeneratorContract(ABC):
    """Inherit, implement `make_generator`, and pytest runs every check.

    Example:
        class TestMyGenerator(GeneratorContract):
            def make_generator(self):
                return MyGenerator(strength=0.5)
    """

    #: Class table of the conditions.
    labels = LABELS
    #: ``(height, width)`` of the conditions; give other sizes if it accepts few.
    sizes: tuple[tuple[int, int], ...] = ((24, 32), (17, 23))
    #: Draws for each condition.
    count = 2
    #: Grey levels by which an image may differ when it is made in a batch of another size, which rounds differently.
    tolerance = 1

    @abstractmethod
    def make_generator(self) -> Generator:
        """Return a fresh generator; `prepare` has not been called."""

    def conditions(self, size: tuple[int, int]) -> list[Sample]:
        """Return two conditions of a size: labelled samples. Override it for prompts and scribbles."""
        rng = Rng(2).child(*size)
        made = [make_sample(f"c{i}", make_mask(rng.child(i), size), rng.child(i)) for i in range(2)]
        for sample in made:
            _freeze(sample)
        return made

    def prepared(self) -> Generator:
        """Return a fresh generator that is ready for `labels`."""
        generator = self.make_generator()
        generator.prepare(self.labels)
        return generator

    def draws(self, size: tuple[int, int]) -> list[Draw]:
        """Return `count` draws for each of `conditions`."""
        return [Draw(c, k, Rng(3).child(c.id, k).integer()) for c in self.conditions(size) for k in range(self.count)]

    def generate(self, generator: Generator, draws: Sequence[Draw]) -> list[Result]:
        """Ask for all `draws` in batches as large as the generator takes, as the engine does."""
        results: dict[str, Result] = {}
        waiting = list(draws)
        while waiting:
            key = generator.size_of(waiting[0])
            batch = [draw for draw in waiting if generator.size_of(draw) == key][: generator.batch_size]
            made = generator.generate(batch, ignore_index=self.labels.ignore_index)
            results |= {draw.key: result for draw, result in zip(batch, made, strict=True)}
            waiting = [draw for draw in waiting if draw.key not in results]
        return [results[draw.key] for draw in draws]

    def test_every_draw_is_answered(self) -> None:
        """`generate` accepts what `_generate` returns at every size; a refusal says why, and not all are refused."""
        generator = self.prepared()
        for size in self.sizes:
            results = self.generate(generator, self.draws(size))
            assert any(isinstance(result, Sample) for result in results), f"everything of size {size} was refused"
            for result in results:
                if isinstance(result, Refused):
                    assert result.reason.strip()
                else:
                    assert result.size == size

    def test_an_image_depends_on_its_draw_alone(self) -> None:
        """Neither the batch nor the order nor earlier calls nor a fresh start change an image."""
        generator, draws = self.prepared(), self.draws(self.sizes[0])
        together = self.generate(generator, draws)
        alone = [self.generate(generator, [draw])[0] for draw in draws]
        backwards = self.generate(self.prepared(), draws[::-1])[::-1]
        for first, second, third in zip(together, alone, backwards, strict=True):
            self.assert_equal(first, second, self.tolerance)
            self.assert_equal(first, third, self.tolerance)

    def test_the_same_call_gives_the_same_bytes(self) -> None:
        """A run that is repeated or resumed writes the same files."""
        generator, draws = self.prepared(), self.draws(self.sizes[0])
        for first, second in zip(self.generate(generator, draws), self.generate(generator, draws), strict=True):
            self.assert_equal(first, second, 0)

    def test_seeds_matter(self) -> None:
        """K images of one condition differ in their seeds alone; equal ones would teach nothing new."""
        generator = self.prepared()
        draw = self.draws(self.sizes[0])[0]
        made = [self.generate(generator, [replace(draw, seed=seed)])[0] for seed in (1, 2, 3)]
        images = [sample.image for sample in made if isinstance(sample, Sample) and sample.image is not None]
        assert len({image.tobytes() for image in images}) > 1

    def test_conditions_stay_untouched(self) -> None:
        """Results are new arrays; the conditions here are read-only, and stay equal to fresh ones."""
        draws = self.draws(self.sizes[0])
        self.generate(self.prepared(), draws)
        for draw, fresh in zip(draws, self.draws(self.sizes[0]), strict=True):
            np.testing.assert_equal(draw.condition.image, fresh.condition.image)
            np.testing.assert_equal(draw.condition.mask, fresh.condition.mask)

    def test_global_random_state_stays_untouched(self) -> None:
        """All randomness comes from the seeds of the draws."""
        before = global_random_state()
        self.generate(self.prepared(), self.draws(self.sizes[0])[:1])
        assert global_random_state() == before

    def test_a_condition_without_a_label_is_answered(self) -> None:
        """Where nothing but ignored pixels is asked for, there is an image or a refusal, never a crash."""
        draw = self.draws(self.sizes[0])[0]
        if draw.condition.mask is None:  # a prompt asks for no classes
            return
        nothing = np.full_like(draw.condition.mask, self.labels.ignore_index)
        (result,) = self.generate(self.prepared(), [replace(draw, condition=replace(draw.condition, mask=nothing))])
        assert result.reason.strip() if isinstance(result, Refused) else result.size == draw.condition.size

    def test_a_condition_of_another_kind_is_told(self) -> None:
        """A prompt in place of a mask, or a mask in place of a prompt: an image, a refusal or an error of genaug."""
        draw = self.draws(self.sizes[0])[0]
        condition = draw.condition
        if condition.prompt is not None:
            mask = make_mask(Rng(4), condition.size)
            other = Sample(condition.id, mask=mask)
        else:
            other = Sample(condition.id, prompt=Prompt("a road with a car", condition.size))
        try:
            (result,) = self.generate(self.prepared(), [replace(draw, condition=other)])
        except GenaugError:
            return
        assert result.reason.strip() if isinstance(result, Refused) else result.size == condition.size

    def test_provenance_is_json_that_stays_the_same(self) -> None:
        """Every row of a manifest repeats it, and two machines must agree on it."""
        first, second = (json.dumps(dict(self.prepared().describe()), allow_nan=False) for _ in range(2))
        assert first == second

    def assert_equal(self, first: Result, second: Result, tolerance: int) -> None:
        """Assert that two results are both refused, or that images differ by `tolerance` and masks not at all."""
        if isinstance(first, Refused) or isinstance(second, Refused):
            assert first == second
            return
        assert first.image is not None
        assert second.image is not None
        assert int(np.abs(first.image.astype(int) - second.image.astype(int)).max()) <= tolerance
        np.testing.assert_equal(first.mask, second.mask)


def _freeze(sample: Sample) -> None:
    for array in (sample.image, sample.mask):
        if array is not None:
            array.flags.writeable = False
