"""What unlabelled scenes could give: the same images with true labels, true where sure, and the model's own.

    python benchmarks/tiny_pseudo_labels.py --json results/tiny_pseudo_labels.json

One segmenter is trained on the labelled scenes. It labels the unlabelled ones once; then the same training is done
again with half of every batch from those, five times: with the truth at all pixels, with the truth at the pixels whose
confidence reaches the threshold, with the model's label at those pixels, with the model's label everywhere, and with a
wrong label at as many of the kept pixels as the model gets wrong, but drawn by lot. What lies between the first two is
what the threshold leaves out; between the second and the third, what the model's errors cost; the last says whether it
is their number or that they are always the same ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import emit, parser
from selftraining import ARMS, Arrays, build_model, rows_of, train

from genaug_tiny.experiment import TEST_SEEDS, labelled_seeds
from genaug_tiny.scenes import CLASSES, render_scenes

UNLABELLED = range(600_000, 700_000)
IGNORE = 255


def main() -> None:
    """Train every arm of every seed, then write the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, help="keep finished trainings in this folder")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--first", type=int, default=0, help="first seed; those from 60 on are for development")
    arguments.add_argument("--scenes", type=int, default=20)
    arguments.add_argument("--steps", type=int, default=1000)
    arguments.add_argument("--threshold", type=float, default=0.95)
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    test = render_scenes(TEST_SEEDS)
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(options.first, options.first + options.seeds):
            folder = (options.work or Path(temporary)) / f"{options.scenes}-{options.steps}" / f"seed{seed}"
            one_seed(results, options, seed, test, folder)
    emit(rows_of(results), options.json, seeds=results)


def one_seed(results: dict[str, list[dict[str, Any]]], options: Any, seed: int, test: Arrays, folder: Path) -> None:
    """Train all arms of one seed, appending to `results`."""
    labelled = render_scenes(labelled_seeds(options.scenes, seed))
    images, truth = render_scenes(UNLABELLED[400 * seed : 400 * (seed + 1)])

    def fit(name: str, data: Arrays, **extra: Any) -> None:
        result = train(
            ARMS["supervised"], data, images, test, folder / name.replace(" ", "-"), classes=len(CLASSES),
            model="unet", steps=options.steps, batch=8, lr=4e-3, seed=seed,
        )  # fmt: skip
        results.setdefault(name, []).append({**result, **extra})
        print(f"seed {seed}, {name}: {100 * result['miou']:.1f} %", flush=True)

    # `rows_of` compares with the arm of this name.
    fit("supervised", labelled)
    confidence, label = predicted(folder / "supervised" / "models.pt", images)
    keep = confidence >= options.threshold
    wrong = label != truth
    figures = {
        "kept": float(keep.mean()),
        "right_of_kept": float((~wrong)[keep].mean()),
        "right": float((~wrong).mean()),
    }
    arms = {
        "truth": truth,
        "truth where sure": np.where(keep, truth, IGNORE),
        "own labels where sure": np.where(keep, label, IGNORE),
        "own labels": label,
        "truth where sure, errors by lot": np.where(keep, by_lot(truth, wrong, keep, seed), IGNORE),
    }
    for name, masks in arms.items():
        fit(name, both(labelled, (images, masks.astype(np.uint8))), **figures)


def predicted(weights: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and label of every pixel, each ``[N, H, W]``, by the model that was saved."""
    model = build_model("unet", len(CLASSES)).eval()
    model.load_state_dict(torch.load(weights, weights_only=True)["student"])
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), 50):
            batch = torch.from_numpy(images[start : start + 50]).movedim(-1, 1).float() / 255
            parts.append(model(batch).softmax(1).max(1))
    confidence, label = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return confidence, label


def by_lot(truth: np.ndarray, wrong: np.ndarray, keep: np.ndarray, seed: int) -> np.ndarray:
    """Return the truth with a random other class at as many of the kept pixels as the model gets wrong there."""
    generator = np.random.default_rng(seed)
    hit = generator.random(truth.shape) < wrong[keep].mean()
    other = (truth + generator.integers(1, len(CLASSES), truth.shape)) % len(CLASSES)
    return np.where(hit, other, truth)


def both(labelled: Arrays, more: Arrays) -> Arrays:
    """Return the labelled scenes, repeated to be half of what is drawn, and the others."""
    times = len(more[0]) // len(labelled[0])
    images, masks = (np.concatenate([np.concatenate([a] * times), b]) for a, b in zip(labelled, more, strict=True))
    return images, masks


if __name__ == "__main__":
    main()
