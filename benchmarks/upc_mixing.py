"""UPC: selection and mixing against a Python loop over patches, and as a share of a training step.

One thread, 21 classes. The loop is what one writes from the paper: per image and patch the entropy, then a sort, then a
copy per chosen patch; its results are equal. Both sides begin with logits and end with a mixed batch ("selection and
mixing"), or begin with an uncertainty map and end with masks ("selection"). With few large patches on a CPU both are
bound by memory and the loop's slices are no disadvantage; it is many patches, or a GPU (``--device cuda``), where the
loop pays for every call.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from harness import Row, alternate, compare, emit, parser, row
from torch import Tensor

from genaug import Rng
from genaug.batch import Batch
from genaug.predictions import Predictions
from genaug_upc.functional import entropy_map, patch_masks, patch_ranks, patch_scores
from genaug_upc.mixer import UncertaintyPatchCutMix

CLASSES = 21
DEVICE = torch.device("cpu")
#: The largest share of a training step that selection and mixing may take.
SHARE = 0.02


def patches(size: int, grid: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of every patch, row by row."""
    edges = list(pairwise(r * size // grid for r in range(grid + 1)))
    return [(slice(*rows), slice(*columns)) for rows in edges for columns in edges]


def loop_mix(batch: Batch, partner: Batch, grid: int, numbers: list[int], donors: list[int]) -> Batch:
    """Mix as the mixer does, patch after patch; draws are given."""
    assert batch.predictions is not None
    assert batch.targets is not None
    assert partner.targets is not None
    logits, places = batch.predictions.values, patches(batch.size[0], grid)
    images, targets = batch.images.clone(), batch.targets.clone()
    weights = torch.ones_like(images[:, 0]) if batch.weights is None else batch.weights.clone()
    valid, provenance = torch.ones_like(targets, dtype=torch.bool), torch.zeros_like(targets)
    for i, (k, donor) in enumerate(zip(numbers, donors, strict=True)):
        scores = []
        for rows, columns in places:
            log_probs = logits[i, :, rows, columns].log_softmax(0)
            scores.append(-(log_probs.exp() * log_probs).sum().item())
        order = sorted(range(len(places)), key=lambda p: (-scores[p], p))
        for rows, columns in (places[p] for p in order[:k]):
            images[i, :, rows, columns] = partner.images[donor, :, rows, columns]
            targets[i, rows, columns] = partner.targets[donor, rows, columns]
            weights[i, rows, columns] = 1.0
            provenance[i, rows, columns] = 1
    return Batch(images, targets, weights, valid, provenance)


def loop_select(uncertainty: Tensor, grid: int, k: int) -> Tensor:
    """Return the masks of the k most uncertain patches, patch after patch."""
    places = patches(uncertainty.shape[1], grid)
    masks = torch.zeros_like(uncertainty, dtype=torch.bool)
    for i, values in enumerate(uncertainty):
        scores = [values[rows, columns].sum().item() for rows, columns in places]
        order = sorted(range(len(places)), key=lambda p: (-scores[p], p))
        for rows, columns in (places[p] for p in order[:k]):
            masks[i, rows, columns] = True
    return masks


def select(uncertainty: Tensor, grid: int, k: int) -> Tensor:
    """Return the same by the library."""
    chosen = patch_ranks(patch_scores(uncertainty, grid)) < k
    return patch_masks(chosen.view(-1, grid, grid), (uncertainty.shape[1], uncertainty.shape[2]))


def batches(count: int, size: int, seed: int) -> tuple[Batch, Batch]:
    """Return an unlabelled batch with predictions, and a labelled one."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, size, size)
    logits = torch.randn(count, CLASSES, size, size, generator=generator) * 3
    batch = Batch(
        torch.rand(count, 3, size, size, generator=generator),
        targets=logits.argmax(1),
        weights=torch.ones(shape),
        predictions=Predictions(logits, "logits"),
    )
    labels = torch.randint(0, CLASSES, shape, generator=generator)
    partner = Batch(torch.rand(count, 3, size, size, generator=generator), targets=labels)
    return batch.to(DEVICE), partner.to(DEVICE)


def waiting(function: Callable[[], object]) -> Callable[[], None]:
    """Return `function` with a wait for the GPU after it."""

    def call() -> None:
        function()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return call


def against_loops(count: int, size: int, grid: int, runs: int) -> list[Row]:
    """Compare at one size and grid; about a fifth of the patches is replaced, as with 3 of 16."""
    batch, partner = batches(count, size, grid)
    k = round(3 / 16 * grid**2)
    mixer, rng = UncertaintyPatchCutMix(grid=grid, ks=[k]), Rng(7)
    assert batch.predictions is not None
    uncertainty = entropy_map(batch.predictions)
    donors = mixer.plan(uncertainty, partner, rng=rng).donors.tolist()
    ours, theirs = mixer(batch, partner, rng=rng), loop_mix(batch, partner, grid, [k] * count, donors)
    for name in ("images", "targets", "weights", "valid", "provenance"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(select(uncertainty, grid, k), loop_select(uncertainty, grid, k))
    setting = f"{count}x{size}x{size}, N={grid}"
    whole = alternate(
        {
            "ours": waiting(lambda: mixer(batch, partner, rng=rng)),
            "loop": waiting(lambda: loop_mix(batch, partner, grid, [k] * count, donors)),
        },
        runs=runs,
    )
    selection = alternate(
        {
            "ours": waiting(lambda: select(uncertainty, grid, k)),
            "loop": waiting(lambda: loop_select(uncertainty, grid, k)),
        },
        runs=5 * runs,
    )
    return [
        compare(f"selection and mixing, {setting}", whole, candidate="ours", baseline="loop"),
        compare(f"selection, {setting}", selection, candidate="ours", baseline="loop"),
    ]


def against_a_step(count: int, size: int, runs: int) -> list[Row]:
    """Return the seconds of one step of a SegFormer-B0, and the mixer's share; a ratio above 1 is below `SHARE`."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    model = (
        SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)).train().to(DEVICE)
    )  # the defaults are B0
    batch, partner = batches(count, size, 1)
    mixer, rng = UncertaintyPatchCutMix(), Rng(7)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(pixel_values=batch.images, labels=batch.targets).loss.backward()

    times = alternate({"mix": waiting(lambda: mixer(batch, partner, rng=rng)), "step": waiting(step)}, runs=runs)
    shares = [mix / whole for mix, whole in zip(times["mix"], times["step"], strict=True)]
    setting = f"{count}x{size}x{size}, N=4"
    return [
        row(f"SegFormer-B0 forward and backward, {setting}", times["step"], None, "s"),
        row(f"selection and mixing beside it, {setting}", times["mix"], None, "s"),
        row(f"share of the step, bound {SHARE:.0%}, {setting}", shares, SHARE, "share"),
    ]


def main() -> None:
    """Measure both."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=7)
    arguments.add_argument("--step-runs", type=int, default=3)
    arguments.add_argument("--device", default="cpu")
    options = arguments.parse_args()
    global DEVICE
    DEVICE = torch.device(options.device)
    torch.set_num_threads(1)
    rows = []
    for size in (256, 513):
        for grid in (4, 16):
            rows += against_loops(16, size, grid, options.runs)
    for size in (256, 513):
        rows += against_a_step(4, size, options.step_runs)
    emit(rows, options.json)


if __name__ == "__main__":
    main()
