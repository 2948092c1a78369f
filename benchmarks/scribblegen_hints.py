"""How soon a ControlNet listens to scribbles: first weights of the hint encoder, plain against scaled.

The figure is the mean change of the predicted noise (whose own mean size is 0.8) when the scribbles of eight scenes are
exchanged, at timestep 300, after a short training of ScribbleGen on genaug-tiny.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from harness import emit, parser, row

from genaug import LabelSpace, Rng, Sample
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.generator import ScribbleGenGenerator
from genaug_scribbles.maker import make_scribbles
from genaug_tiny.scenes import CLASSES, render_scenes

LABELS, SCENES = LabelSpace(CLASSES), range(700_000, 710_000)


def sensitivity(samples: list[Sample], folder: Path, *, hint_init: str, steps: int, learning_rate: float) -> float:
    """Train, then return the mean change of the prediction when hints are exchanged."""
    training = {
        "steps": steps, "batch_size": 8, "learning_rate": learning_rate, "hint_init": hint_init, "preview_images": 0,
    }  # fmt: skip
    generator = ScribbleGenGenerator(ScribbleGenOptions(base="genaug-tiny", training=training))
    generator.adapt(samples, folder, labels=LABELS, rng=Rng(0))
    generator.load_adapted(folder)
    generator.prepare(LABELS)
    network, unet = generator.network, generator.pipe.unet
    assert network is not None
    latents = torch.randn(8, unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(1))
    text = generator.encoder.embed(generator.encoder.tokens("road sky tree")).expand(8, -1, -1)
    hints = generator.codec.encode(torch.stack([torch.from_numpy(s.mask).long() for s in samples[:8]]))
    timesteps, none = torch.full((8,), 300), torch.zeros(8, dtype=torch.bool)
    with torch.no_grad():
        own, other = (network(latents, timesteps, text, h, none) for h in (hints, hints.flip(0)))
    return float((own - other).abs().mean())


def main() -> None:
    """Train once from each kind of first weights, with the same random numbers."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--scenes", type=int, default=400)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--learning-rate", type=float, default=2e-4)
    options = arguments.parse_args()
    images, masks = render_scenes(SCENES[: options.scenes])
    samples = [
        Sample(f"s{i}", image, make_scribbles(mask, ignore_index=255, rng=Rng(0).child(i)))
        for i, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]
    values = {}
    for hint_init in ("plain", "scaled"):
        with tempfile.TemporaryDirectory() as folder:
            values[hint_init] = sensitivity(
                samples, Path(folder), hint_init=hint_init, steps=options.steps, learning_rate=options.learning_rate
            )
    name = f"change of the prediction, {options.steps} steps"
    rows = [
        row(f"{name}, hint_init {key}", [value], values["plain"], "", larger_is_better=True)
        for key, value in values.items()
    ]
    emit(rows, options.json)


if __name__ == "__main__":
    main()
