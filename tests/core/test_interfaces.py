"""What every component gets for free: inputs and results are checked around its one method."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from genaug.batch import Batch
from genaug.errors import SampleError
from genaug.interfaces import Adaptable, Filter, Generator, Mixer, Predictor, PseudoLabeler
from genaug.labels import LabelSpace
from genaug.predictions import Predictions, PseudoTargets
from genaug.rng import Rng
from genaug.types import Draw, Group, Refused, Sample, Verdict

LABELS = LabelSpace({0: "a", 1: "b"})
IMAGE = np.zeros((2, 3, 3), np.uint8)
MASK = np.array([[0, 1, 0], [1, 255, 1]], np.uint8)


def draw(k: int = 0, mask: np.ndarray = MASK) -> Draw:
    return Draw(Sample("street", mask=mask), k, seed=k)


class Fixed(Generator):
    """Returns what a test gives it."""

    batch_size = 2

    def __init__(self, *results: Any) -> None:
        self.results = results

    def _generate(self, draws: Sequence[Draw]) -> Sequence[Sample | Refused]:
        return list(self.results)


GOOD = Sample("street_0", IMAGE, MASK)


def test_a_generator_answers_draw_by_draw() -> None:
    refused = Refused("flagged by the safety checker")
    assert Fixed(GOOD, refused).generate([draw(0), draw(1)], ignore_index=255) == [GOOD, refused]
    assert Fixed("never called").generate([], ignore_index=255) == []


@pytest.mark.parametrize(
    ("draws", "results", "told"),
    [
        ([draw(0), draw(1), draw(2)], [], r"3 draws of sizes \[\(2, 3\)\]\. Allowed: at most 2 draws of one size"),
        ([draw(0), draw(1, MASK.T.copy())], [], r"2 draws of sizes \[\(2, 3\), \(3, 2\)\]"),
        ([draw(0), draw(1)], [GOOD], "1 results for 2 draws"),
        ([draw(0)], [Sample("x", IMAGE)], "sample street_0: image or mask missing"),
        ([draw(0)], [Sample("x", IMAGE[:1], MASK[:1])], r"sample street_0: mask of type uint8, size \(1, 3\)"),
        ([draw(0)], [Sample("x", IMAGE, MASK + np.uint8(1))], r"sample street_0: \d pixels were given another class"),
    ],
)
def test_broken_generators_are_caught(draws: list[Draw], results: list[Sample], told: str) -> None:
    with pytest.raises(SampleError, match=told):
        Fixed(*results).generate(draws, ignore_index=255)


def test_a_generator_may_ignore_pixels_but_only_by_the_ignore_index() -> None:
    partly = MASK.copy()
    partly[0] = 254
    result = Sample("x", IMAGE, partly)
    assert Fixed(result).generate([draw(0)], ignore_index=254) == [result]
    with pytest.raises(SampleError, match="Allowed: pixels set to the ignore index 255"):
        Fixed(result).generate([draw(0)], ignore_index=255)


class Drawing(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            Fixed(GOOD).generate([draw(0)], ignore_index=255)
        except SampleError as error:
            return int("Fill a store first" in str(error))
        return 2


def test_generators_refuse_to_work_in_dataloader_workers() -> None:
    assert list(DataLoader(Drawing(), num_workers=1)) == [torch.tensor([1])]
    assert list(DataLoader(Drawing(), num_workers=0)) == [torch.tensor([2])]


class Judging(Filter):
    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = verdicts

    def _judge(self, group: Group) -> Sequence[Verdict]:
        return self.verdicts


GROUP = Group("street", MASK, (GOOD,), (4,))


def changed(value: int) -> np.ndarray:
    mask = MASK.copy()
    mask[0, 0] = value
    return mask


def test_filters_may_drop_with_a_reason_and_ignore_pixels() -> None:
    for verdict in (Verdict(True), Verdict(False, "blurred"), Verdict(True, mask=changed(255))):
        assert Judging(verdict).judge(GROUP, LABELS) == [verdict]


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ([], "Judging, street: 0 verdicts for 1 samples"),
        ([Verdict(False)], "sample street_4: a dropped sample has no reason"),
        ([Verdict(True, mask=changed(1))], r"1 pixels were given another class\. Allowed: .* ignore index 255"),
        ([Verdict(True, mask=MASK[:1])], r"mask of type uint8, size \(1, 3\)\. Allowed: uint8 \(2, 3\)"),
        ([Verdict(True, mask=MASK.astype(np.int64))], "mask of type int64"),
    ],
)
def test_broken_filters_are_caught(verdicts: list[Verdict], told: str) -> None:
    with pytest.raises(SampleError, match=told):
        Judging(*verdicts).judge(GROUP, LABELS)


class Hard(PseudoLabeler):
    def _label(self, predictions, valid, ignore_index, group):
        assert not torch.is_grad_enabled()
        confidence, targets = predictions.confidence()
        return PseudoTargets(targets, confidence)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_labelers_never_see_what_is_not_finite_nor_pass_gradients(dtype) -> None:
    logits = torch.randn(2, 3, 4, 5, dtype=dtype)
    logits[0, 1, 2, 3], logits[1, 0, 0, 0] = torch.nan, torch.inf
    valid = torch.ones(2, 4, 5, dtype=torch.bool)
    valid[1, 3] = False
    targets = Hard()(Predictions(logits.requires_grad_(), "logits"), valid=valid, ignore_index=200)
    bad = ~valid
    bad[0, 2, 3] = bad[1, 0, 0] = True
    assert (targets.weights.dtype, targets.weights.requires_grad) == (torch.float32, False)
    assert torch.equal(targets.weights == 0, bad)
    assert torch.equal(targets.hard == 200, bad)
    assert torch.equal(targets.hard[~bad], logits.argmax(1)[~bad])
    with pytest.raises(SampleError, match=r"valid of shape \(2, 4\).*\(2, 4, 5\)"):
        Hard()(Predictions(logits, "logits"), valid=valid[..., 0])
    with pytest.raises(SampleError, match=r"Hard: a Tensor\. Allowed: Predictions\. Say what the numbers mean"):
        Hard()(logits)


class Swap(Mixer):
    def _mix(self, batch: Batch, partner: Batch, rng: Rng) -> Batch:
        return partner


class Labelled(Swap):
    partner = "labeled"


class Late(Swap):
    needs_targets = True


def test_mixers_want_fitting_partners() -> None:
    one, other = Batch(torch.zeros(1, 3, 4, 4)), Batch(torch.ones(2, 3, 4, 4))
    assert Swap().mix(one, other, rng=Rng(0)) is other
    assert torch.equal(
        Swap()(Batch(torch.arange(48.0).view(4, 3, 2, 2)), rng=Rng(0)).images[0].flatten()[:1], torch.tensor([36.0])
    )
    with pytest.raises(SampleError, match=r"batch \(1, 3, 4, 4\), partner \(1, 3, 4, 2\)\. Allowed: equal shapes"):
        Swap().mix(one, Batch(torch.ones(1, 3, 4, 2)), rng=Rng(0))
    for partner in (None, other):
        with pytest.raises(SampleError, match="a batch of labelled images"):
            Labelled().mix(one, partner, rng=Rng(0))
    with pytest.raises(SampleError, match="label-then-mix"):
        Late().mix(one, rng=Rng(0))


def test_predictors_and_learners_are_recognised_by_what_they_do() -> None:
    assert isinstance(torch.nn.Identity(), Predictor)
    assert not isinstance(GOOD, Predictor)
    assert not isinstance(torch.nn.Identity(), Adaptable)


@pytest.mark.parametrize("kind", [Generator, Filter, PseudoLabeler, Mixer])
def test_each_interface_asks_for_one_method(kind: type[Any]) -> None:
    assert len(kind.__abstractmethods__) == 1
    with pytest.raises(TypeError, match="abstract"):
        kind()
