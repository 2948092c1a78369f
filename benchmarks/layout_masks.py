"""Layout masks: built once per mask, against rebuilding them in every cross-attention layer and step.

The baseline does what layout-to-image code without this step does: in each of the 16 cross-attention layers of Stable
Diffusion 1.4, at every step, one nearest-neighbour resize per token of every class.
"""

from __future__ import annotations

import torch
from harness import alternate, compare, emit, parser
from torch.nn import functional as F

from genaug_diffusion.layout import GLOBAL, layout_masks

#: Grid sides of the 16 cross-attention layers at 512x512: two per down level, one in the middle, three per up level.
LAYERS = [64, 64, 32, 32, 16, 16, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64]


def per_layer(labels: torch.Tensor, token_class: torch.Tensor) -> torch.Tensor:
    """Rebuild the mask of every layer, once per layer: the cost of one step of the baseline."""
    mask = torch.empty(0)
    for side in LAYERS:
        mask = torch.ones(1, 1, side * side, len(token_class), dtype=torch.bool)
        for j in range(len(token_class)):
            if token_class[j] != GLOBAL:
                one = (labels == token_class[j]).float()[:, None]
                mask[0, 0, :, j] = F.interpolate(one, (side, side), mode="nearest").flatten() > 0.5
    return mask


def main() -> None:
    """Measure at 3, 8 and 20 classes of two tokens each."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=7)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rows = []
    for classes in (3, 8, 20):
        generator = torch.Generator().manual_seed(classes)
        labels = (
            torch.randint(0, classes, (1, 16, 16), generator=generator)
            .repeat_interleave(32, 1)
            .repeat_interleave(32, 2)
        )
        token_class = torch.full((77,), GLOBAL)
        token_class[1 : 1 + 2 * classes] = torch.arange(classes).repeat_interleave(2)
        times = alternate(
            {
                "once per mask": lambda: layout_masks(labels, token_class[None], (64, 64)),
                "per layer, one step": lambda: per_layer(labels, token_class),
            },
            runs=options.runs,
        )
        name = f"masks of one image, {classes} classes (baseline: a single step)"
        rows.append(compare(name, times, candidate="once per mask", baseline="per layer, one step"))
        fifty = {**times, "per layer, one step": [51 * t for t in times["per layer, one step"]]}
        name = f"masks of one image, {classes} classes (baseline: 51 steps, computed from one)"
        rows.append(compare(name, fifty, candidate="once per mask", baseline="per layer, one step"))
    emit(rows, options.json)


if __name__ == "__main__":
    main()
