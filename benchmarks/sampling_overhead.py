"""Sampling with layout and adapter against the stock pipeline on the same weights, steps and batch.

Both samplings are timed as a whole (prompt embeddings given, VAE decoding included) and take turns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from harness import Row, alternate, compare, emit, parser

from genaug import LabelSpace, Rng
from genaug.registry import default_registry
from genaug_diffusion.base import load_pipeline, vae_factor
from genaug_diffusion.schedulers import make_scheduler
from genaug_diffusion.testing import make_pipeline
from genaug_matchmask.adapter import LTAdapter
from genaug_matchmask.condition import LayoutConditioner
from genaug_matchmask.config import MatchMaskOptions


def sd14_pipeline() -> Any:
    """Return a pipeline with a random UNet of Stable Diffusion 1.4's size; its VAE and text encoder are tiny."""
    return make_pipeline(
        sample_size=64, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280), norm_num_groups=32,
        attention_head_dim=8, cross_attention_dim=768,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )  # fmt: skip


def measure(name: str, pipe: Any, *, steps: int, images: int, side: int, runs: int) -> Row:
    """Return the row of one model; ``side`` is the latent side."""
    labels = LabelSpace(dict(enumerate(("sky", "building", "road", "grass", "tree", "car"))))
    pipe.scheduler = make_scheduler("plms", pipe.scheduler.config)
    conditioner = LayoutConditioner(pipe, labels, MatchMaskOptions())
    size = side * vae_factor(pipe)
    mask = torch.arange(6).repeat_interleave(-(-size // 6))[:size, None].expand(size, size).to(torch.uint8).numpy()
    prompt = conditioner.prompt(mask, where="benchmark")
    # Random text encodings of the UNet's width: what they say does not change the time.
    text = torch.randn(2, 77, pipe.unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(0))
    fixed = {
        "prompt_embeds": text[:1].expand(images, -1, -1),
        "negative_prompt_embeds": text[1:].expand(images, -1, -1),
        "height": size, "width": size, "num_inference_steps": steps, "guidance_scale": 2.0, "output_type": "np",
    }  # fmt: skip

    @torch.inference_mode()
    def stock() -> None:
        pipe(**fixed, generator=[torch.Generator().manual_seed(i) for i in range(images)])

    @torch.inference_mode()
    def adapted() -> None:
        adapter = state["adapter"]
        layout = conditioner.masks([mask] * images, [prompt] * images, (size, size), vae_factor(pipe))
        assert adapter.layers
        pipe(
            **fixed, cross_attention_kwargs={"layout": layout},
            generator=[torch.Generator().manual_seed(i) for i in range(images)],
        )  # fmt: skip

    state: dict[str, LTAdapter] = {}
    times: dict[str, list[float]] = {"stock": [], "adapted": []}
    # Attaching and detaching lies outside the timed part: it happens once per run of thousands of images.
    for turn in range(runs + 1):
        stock_time = alternate({"stock": stock}, runs=1, warmup=0)["stock"]
        state["adapter"] = LTAdapter(pipe.unet)
        with torch.no_grad():
            for parameter_name, parameter in state["adapter"].named_parameters().items():
                values = torch.randn(parameter.shape, generator=Rng(0).child(parameter_name).torch())
                parameter.copy_(values * 0.02)
        adapted_time = alternate({"adapted": adapted}, runs=1, warmup=0)["adapted"]
        state["adapter"].detach()
        if turn:  # the first turn warms up
            times["stock"] += stock_time
            times["adapted"] += adapted_time
    return compare(name, times, candidate="adapted", baseline="stock")


def main() -> None:
    """Measure on genaug-tiny and, with --sd14, at the size of Stable Diffusion 1.4."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--sd14", action="store_true", help="minutes on a CPU, 4 GB of memory")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    tiny = load_pipeline("genaug-tiny", root=Path(), registry=default_registry())
    rows = [measure("genaug-tiny, 10 images, 10 steps", tiny, steps=10, images=10, side=16, runs=options.runs)]
    if options.sd14:
        name = "Stable Diffusion 1.4 size, 1 image, 2 steps, latents 64x64"
        rows.append(measure(name, sd14_pipeline(), steps=2, images=1, side=64, runs=max(2, options.runs // 2)))
    emit(rows, options.json)


if __name__ == "__main__":
    main()
