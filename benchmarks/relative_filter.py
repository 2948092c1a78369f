"""Relative filter: pairwise agreement against one-hot voting, K=5, 512x512."""

from __future__ import annotations

import numpy as np
from harness import alternate, compare, emit, parser

from genaug_matchmask.functional import majority, relative_filter


def one_hot(predictions: np.ndarray, mask: np.ndarray, classes: int, ignore_index: int) -> np.ndarray:
    """Count votes per class and pixel, take the first maximum, ignore what differs."""
    counts = np.zeros((classes, *mask.shape), np.int16)
    for c in range(classes):
        counts[c] = (predictions == c).sum(0)
    winner = counts.argmax(0).astype(np.uint8)
    return np.where(predictions == winner, mask, np.uint8(ignore_index))


def main() -> None:
    """Measure at 21 and 150 classes; the two must agree."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=7)
    options = arguments.parse_args()
    rows = []
    for classes in (21, 150):
        rng = np.random.default_rng(classes)
        predictions = rng.integers(0, classes, (5, 512, 512), dtype=np.uint8)
        mask = rng.integers(0, classes, (512, 512), dtype=np.uint8)
        ours, votes = relative_filter(predictions, mask, 255), one_hot(predictions, mask, classes, 255)
        assert np.array_equal(ours, votes)
        assert majority(predictions).shape == mask.shape
        times = alternate(
            {
                "pairwise": lambda: relative_filter(predictions, mask, 255),
                "one-hot": lambda: one_hot(predictions, mask, classes, 255),
            },
            runs=options.runs,
        )
        rows.append(compare(f"relative filter, {classes} classes", times, candidate="pairwise", baseline="one-hot"))
    emit(rows, options.json)


if __name__ == "__main__":
    main()
