"""How well genaug-tiny's images follow masks and how much they vary.

Every row is the mean IoU between the masks of 48 evaluation scenes and what a reference segmenter, which knows 1,500
labelled scenes, sees in images made for them, 20 steps of the preset ``fast``: by the prompt alone, with an untrained
adapter, and after adapting to 20 other scenes as the quickstart does. The baseline is the reference on the real images
of the 48 scenes. Variety is the standard deviation of a region's mean colour over three images of the same mask, in
grey levels, averaged over the regions of 16 masks; for real images over three renderings of the same things.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, emit, parser, row
from PIL import Image

from genaug import LabelSpace, Rng, Sample
from genaug.types import Draw
from genaug_matchmask.config import MatchMaskOptions
from genaug_matchmask.generator import MatchMaskGenerator
from genaug_tiny.experiment import RECIPE
from genaug_tiny.scenes import CLASSES, render_scene, render_scenes
from genaug_tiny.segmenter import SmallUNet, evaluate_miou, load, save, train_segmenter

TRAIN, TEST, LABELLED = range(200_000, 201_500), range(500_000, 500_048), range(400_000, 400_020)
LABELS = LabelSpace(CLASSES)
#: Adapted or not, guidance scale, share of the steps before it sets in, spread of light and colours at the start.
SETTINGS = [
    (False, 2.0, 0.0, 0.0),
    (False, 4.0, 0.0, 0.0),
    (True, 2.0, 0.0, 0.0),
    (True, 4.0, 0.0, 0.0),
    (True, 6.0, 0.0, 0.0),
    (True, 4.0, 0.2, 0.0),
    (True, 4.0, 0.4, 0.0),
    (True, 4.0, 0.0, 1.0),
    (True, 4.0, 0.2, 1.0),
    (True, 4.0, 0.2, 1.5),
]


def reference(folder: Path) -> SmallUNet:
    """Train the reference, once."""
    if not (folder / "segmenter.json").is_file():
        images, masks = render_scenes(TRAIN)
        save(train_segmenter(images, masks, num_classes=len(CLASSES), steps=1200, width=20), folder)
    return load(folder)


def generator_of(
    model: str | None, folder: Path, trained: bool, guidance: float, start: float, spread: float
) -> MatchMaskGenerator:
    """Return a generator with an adapter that was trained as in the quickstart, or for one step of no size."""
    training = {**RECIPE["generator"]["training"], "preview_images": 0, "checkpoint_every": 100}
    if not trained:
        training |= {"steps": 1, "learning_rate": 1e-12}
    options: dict[str, Any] = {"base": model or "genaug-tiny", "preset": "fast", "batch_size": 16}
    options |= {"guidance_scale": guidance, "guidance_start": start, "start_spread": spread}
    generator = MatchMaskGenerator(MatchMaskOptions(**options, training=training))
    samples = [
        Sample(f"s{i}", image, mask) for i, (image, mask) in enumerate(zip(*render_scenes(LABELLED), strict=True))
    ]
    place = folder / ("trained" if trained else "untrained")
    place.mkdir(parents=True, exist_ok=True)
    if not generator.adapted(place):
        generator.adapt(samples, place, labels=LABELS, rng=Rng(0))
    generator.load_adapted(place)
    generator.prepare(LABELS)
    return generator


def images_for(generator: MatchMaskGenerator, masks: np.ndarray, k: int = 0) -> np.ndarray:
    """Return image number `k` of every mask."""
    draws = [Draw(Sample(f"t{i}", None, mask), k, Rng(1).child(i, k).integer()) for i, mask in enumerate(masks)]
    made = []
    for start in range(0, len(draws), 16):
        made += generator.generate(draws[start : start + 16], ignore_index=LABELS.ignore_index)
    return np.stack([sample.image for sample in made])


def variety(groups: list[np.ndarray], masks: np.ndarray) -> float:
    """Return how much the mean colour of a region of 80 pixels or more varies between images of the same mask.

    Args:
        groups: Images ``[N, H, W, 3]`` for the same N masks, made independently.
        masks: Class ids ``[N, H, W]``.
    """
    regions = [(number, mask == c) for number, mask in enumerate(masks) for c in CLASSES if (mask == c).sum() >= 80]
    colours = [[images[number][region].mean(0) for images in groups] for number, region in regions]
    return float(np.std(colours, axis=1).mean())


@torch.inference_mode()
def from_prompts(generator: MatchMaskGenerator, masks: np.ndarray, guidance: float) -> np.ndarray:
    """Return one image for every mask's prompt, without layout or adapter."""
    pipe, prompts = generator.pipe, [generator.conditioner.prompt(mask, where="test") for mask in masks]
    assert generator.adapter is not None
    generator.adapter.detach()
    generator.adapter = None
    made = []
    for start in range(0, len(masks), 16):
        part = prompts[start : start + 16]
        out = pipe(
            prompt_embeds=torch.stack([generator.conditioner.embed(p.input_ids) for p in part]),
            negative_prompt_embeds=generator.conditioner.empty().expand(len(part), -1, -1),
            num_inference_steps=20, guidance_scale=guidance, output_type="np", height=64, width=64,
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(part))],
        )  # fmt: skip
        made.append(np.rint(out.images * 255).astype(np.uint8))
    return np.concatenate(made)


def main() -> None:
    """Score everything with one reference."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--model", help="folder of a pipeline; the shipped one by default")
    arguments.add_argument("--work", type=Path, default=Path("runs/tiny_quality"))
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    judge = reference(options.work / "reference")
    real, masks = render_scenes(TEST)
    shown, few = [real[:8]], masks[:16]

    def scored(name: str, images: np.ndarray, more: list[np.ndarray]) -> Row:
        miou, iou = evaluate_miou(judge, images, masks, len(CLASSES))
        classes = dict(zip(CLASSES.values(), map(float, iou), strict=True))
        made = row(name, [miou], ceiling, "share", larger_is_better=True)
        return {**made, "iou": classes, "variety": variety([images[: len(few)], *more], few) if more else None}

    ceiling = evaluate_miou(judge, real, masks, len(CLASSES))[0]
    looks = [np.stack([render_scene(seed, look=look).image for seed in TEST[: len(few)]]) for look in (1, 2)]
    rows = [scored("real images", real, looks)]
    for trained, guidance, start, spread in SETTINGS:
        generator = generator_of(options.model, options.work / "adapters", trained, guidance, start, spread)
        made = images_for(generator, masks)
        shown.append(made[:8])
        name = f"{'adapted' if trained else 'untrained adapter'}, guidance {guidance:g}"
        name += f" from {100 * start:.0f} % of the steps on" if start else ""
        name += f", start spread {spread:g}" if spread else ""
        rows.append(scored(name, made, [images_for(generator, few, k) for k in (1, 2)]))
    rows.insert(1, scored("prompt alone, guidance 2", from_prompts(generator, masks, 2.0), []))
    sheet = np.concatenate([np.concatenate(list(line), 1) for line in shown])
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST).save(
        options.work / "sheet.png"
    )
    emit(rows, options.json)


if __name__ == "__main__":
    main()
