"""Train genaug-tiny's scribble ControlNet: render scenes, scribble over them, adapt as ScribbleGen does, export.

    nice -n 19 python benchmarks/train_tiny_controlnet.py --run-dir RUN --out plugins/genaug_tiny/model

RUN becomes an ordinary adapter folder of ScribbleGen with a checkpoint every 100 steps: the same command goes on where
it was stopped, and only exports when the training is done. OUT gets ``controlnet/`` (a plain diffusers model in
float16, with its card and a line of log for every 100 steps) and ``null_condition.safetensors`` beside it, which is
where the option ``controlnet: genaug-tiny`` looks for them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from genaug import LabelSpace, Rng, Sample
from genaug.labels import default_color
from genaug_scribblegen.adapter_files import CONTROLNET, CONTROLNET_CONFIG, NULL, WEIGHTS
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.generator import ScribbleGenGenerator
from genaug_scribbles.maker import make_scribbles
from genaug_tiny.scenes import CLASSES, CONTROLNET_SEEDS, render_scenes

LABELS = LabelSpace(CLASSES)
LOG_EVERY = 100


def scribbled_scenes(count: int) -> list[Sample]:
    """Render scenes of its own and scribble over them, 3 % of the pixels."""
    images, masks = render_scenes(CONTROLNET_SEEDS[:count])
    drawn = [make_scribbles(m, ignore_index=LABELS.ignore_index, rng=Rng(0).child(i)) for i, m in enumerate(masks)]
    return [Sample(f"s{i}", image, scribble) for i, (image, scribble) in enumerate(zip(images, drawn, strict=True))]


def train(args: argparse.Namespace) -> None:
    """Adapt on the scenes, or do nothing where that is done."""
    training = {
        "steps": args.steps, "batch_size": args.batch, "learning_rate": args.lr, "schedule": "linear",
        "hint_init": "scaled", "flip_probability": 0.5, "checkpoint_every": 100, "preview_images": 0,
    }  # fmt: skip
    options = ScribbleGenOptions(base="genaug-tiny", training=training)
    generator = ScribbleGenGenerator(options, device=args.device)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    if not generator.adapted(args.run_dir):
        generator.adapt(scribbled_scenes(args.scenes), args.run_dir, labels=LABELS, rng=Rng(0))


def export(run: Path, out: Path) -> None:
    """Write what is shipped; every file under a temporary name first."""
    (out / CONTROLNET).mkdir(parents=True, exist_ok=True)
    for name, metadata in ((WEIGHTS, {"format": "pt"}), (NULL, {})):
        state = {key: value.to(torch.float16) for key, value in load_file(run / name).items()}
        partial = (out / name).with_suffix(".part")
        partial.write_bytes(save(state, metadata=metadata))
        partial.replace(out / name)
    about = json.loads((run / "genaug_config.json").read_text("utf-8"))["training"]
    losses = json.loads((run / "training.json").read_text("utf-8"))["losses"]
    means = [losses[i : i + LOG_EVERY] for i in range(0, len(losses), LOG_EVERY)]
    log = [{"step": LOG_EVERY * i + len(part), "loss": round(sum(part) / len(part), 5)} for i, part in enumerate(means)]
    texts = {
        CONTROLNET_CONFIG: (run / CONTROLNET_CONFIG).read_text("utf-8"),
        f"{CONTROLNET}/training_log.jsonl": "".join(json.dumps(row) + "\n" for row in log),
        f"{CONTROLNET}/README.md": card(about),
    }
    for name, text in texts.items():
        partial = (out / name).with_suffix(".part")
        partial.write_text(text, "utf-8")
        partial.replace(out / name)


def card(about: Mapping[str, Any]) -> str:
    """Return the model card, from what the run recorded."""
    options, names = about["options"], LABELS.names
    colours = "\n".join(f"| {i} | {n} | {default_color(i)} |" for i, n in names.items())
    return f"""---
license: apache-2.0
library_name: diffusers
tags: [controlnet, semantic-segmentation, synthetic-data, tiny]
---

# genaug-tiny's scribble ControlNet

A plain diffusers `ControlNetModel` for [genaug-tiny](../README.md): scribbles in, scenes out. ScribbleGen starts from
it where a recipe says `controlnet: genaug-tiny`, because a few dozen scribbled images do not teach one from nothing.
`../null_condition.safetensors` is the hint of no scribble, for guidance on the scribble.

| id | class | colour in the hint |
|---|---|---|
{colours}
| 255 | unlabelled | {default_color(255)} |

Trained on {about["samples"]} rendered scenes (seeds from {CONTROLNET_SEEDS.start:,} on) with scribbles on 3 % of their
pixels, drawn from their masks by `genaug_scribbles.maker`; masks were used for nothing else. {about["steps"]} steps of
{options["batch_size"]} images, AdamW, learning rate {options["learning_rate"]:g} falling to zero, scribble dropout
{options["scribble_dropout"]:g}, left-right flips, hint encoder scaled to the hints at the start; float32, stored in
float16.

```
python benchmarks/train_tiny_controlnet.py --run-dir RUN --out plugins/genaug_tiny/model --scenes {about["samples"]} \\
    --steps {about["steps"]} --batch {options["batch_size"]} --lr {options["learning_rate"]:g}
```

`training_log.jsonl` has the mean loss of every {LOG_EVERY} steps. How well images follow their scribbles is measured by
`benchmarks/tiny_scribble_quality.py`.
"""


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True, help="folder for checkpoints and the trained adapter")
    parser.add_argument("--out", type=Path, required=True, help="folder of the base that gets the ControlNet")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.scenes > len(CONTROLNET_SEEDS):
        parser.error(f"--scenes: {len(CONTROLNET_SEEDS)} at most, as the quickstart labels the others")
    torch.set_num_threads(args.threads)
    train(args)
    export(args.run_dir, args.out)


if __name__ == "__main__":
    main()
