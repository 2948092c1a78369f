"""MaskMatch: cost of hiding patches, as a share of the training step that the masked images are for.

The step is one forward and backward pass of a SegFormer-B0 with 21 classes and its optimizer step, on a batch of
512x512 images, one thread: the local-consistency term alone, without the passes on labelled images and at other scales
that a whole step has too. The limit is 2 %.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import Row, alternate, compare, emit, parser, row

from genaug import Rng
from genaug.batch import Batch
from genaug_maskmatch.functional import grid_shape
from genaug_maskmatch.mixer import PatchMask

CLASSES, SIZE = 21, 512
LIMIT = 0.02


def training_step(batch: Batch) -> Callable[[], None]:
    """Return a function that trains a SegFormer-B0 on masked images of `batch`."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)).train()  # the defaults are B0
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    masked = PatchMask().mix(batch, batch, rng=Rng(0))

    def step() -> None:
        logits = F.interpolate(model(masked.images).logits, size=batch.size, mode="bilinear")
        F.cross_entropy(logits, masked.targets, ignore_index=255).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def naive(batch: Batch, rng: Rng, patch: int = 32, ratio: float = 0.7) -> torch.Tensor:
    """Hide patch after patch."""
    images = batch.images.clone()
    rows, columns = grid_shape(batch.size, patch)
    for i in range(len(batch)):
        cells = rng.child(batch.first + i).numpy().random((rows, columns)) < ratio
        for r in range(rows):
            for c in range(columns):
                if cells[r, c]:
                    images[i, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] = 0
    return images


def main() -> None:
    """Measure all samplings against the step, and against a loop over patches; the results must agree."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=7)
    arguments.add_argument("--batch", type=int, default=2)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    images = torch.randn(options.batch, 3, SIZE, SIZE)
    batch = Batch(images, targets=torch.randint(0, CLASSES, (options.batch, SIZE, SIZE)))
    mixers = {sampling: PatchMask(sampling=sampling) for sampling in ("random", "block", "grid")}
    assert torch.equal(mixers["random"].mix(batch, batch, rng=Rng(0)).images, naive(batch, Rng(0)))
    rows: list[Row] = []
    functions = {name: lambda mixer=mixer: mixer.mix(batch, batch, rng=Rng(0)) for name, mixer in mixers.items()}
    times = alternate({**functions, "step": training_step(batch)}, runs=options.runs, warmup=2)
    step = statistics.median(times["step"])
    rows.append(row(f"training step, {options.batch} images", times["step"], None, "s"))
    for name in mixers:
        shares = [seconds / step for seconds in times[name]]
        rows.append(row(f"hiding patches, {name}, of the step", shares, None, "share"))
        assert statistics.median(shares) <= LIMIT, f"{name}: {shares}"
    times = alternate({"ours": functions["random"], "loop": lambda: naive(batch, Rng(0))}, runs=3 * options.runs)
    rows.append(compare("hiding patches, against a loop over patches", times, candidate="ours", baseline="loop"))
    emit(rows, options.json)


if __name__ == "__main__":
    main()
