"""ScribbleGen's generator against diffusers' ControlNet pipeline at equal UNet calls, and what scaled steps save.

The pipeline is `StableDiffusionControlNetImg2ImgPipeline`, the generator's time is that of its `generate`. Both draw
their noise, encode the real images, run the same ControlNet and UNet at the same number of steps and rows, and decode
with the same autoencoder; the generator also writes prompts and makes hints of scribbles, which the pipeline is given.
They take turns; the row with the bound is of the ratios of pairs of runs that followed one another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionControlNetImg2ImgPipeline
from harness import Row, alternate, compare, emit, parser, row

from genaug import LabelSpace, Rng, Sample
from genaug.registry import default_registry
from genaug.types import Draw
from genaug_diffusion.base import load_pipeline, vae_factor
from genaug_diffusion.schedulers import make_scheduler, training_scheduler
from genaug_diffusion.testing import make_pipeline
from genaug_scribblegen.codec import RgbCodec
from genaug_scribblegen.config import ADAPTIVE_LEVELS, ScribbleGenOptions
from genaug_scribblegen.generator import ScribbleGenGenerator
from genaug_scribblegen.network import ScribbleNetwork, start_controlnet
from genaug_scribblegen.null_condition import NullCondition

STRENGTH = 0.5
BOUND = 1.05
CLASSES = 6
LABELS = LabelSpace({i: f"c{i}" for i in range(CLASSES)})


def sd15_pipeline() -> Any:
    """Return a pipeline with a random UNet of Stable Diffusion 1.5's size; its VAE and text encoder are tiny."""
    return make_pipeline(
        sample_size=64, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280), norm_num_groups=32,
        attention_head_dim=8, cross_attention_dim=768,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )  # fmt: skip


class GivenBase(ScribbleGenGenerator):
    """ScribbleGen on a pipeline that is there already, its network included.

    Args:
        options: See `ScribbleGenOptions`.
        pipe: A Stable Diffusion pipeline.
        network: ControlNet, null condition and UNet.
        text: Encoding of every prompt, ``[T, D]``: what it says does not change the time.
    """

    def __init__(self, options: ScribbleGenOptions, pipe: Any, network: ScribbleNetwork, text: torch.Tensor) -> None:
        super().__init__(options)
        self.given = pipe
        self.load_base(LABELS)
        self.encoder.embed = lambda _: text
        self.network = network

    def load_pipe(self) -> bool:
        """Take the pipeline."""
        self.pipe, self.training_scheduler = self.given, training_scheduler(self.given.scheduler.config)
        self.resolution = self.given.unet.config.sample_size * vae_factor(self.given)
        return True


class Setting:
    """One model with fixed inputs; text encodings are random: what they say does not change the time.

    Args:
        pipe: A Stable Diffusion pipeline.
        steps: DDIM steps of one image.
        images: Rows of a batch, before guidance doubles them.
    """

    def __init__(self, pipe: Any, *, steps: int, images: int) -> None:
        self.pipe, self.steps, self.images = pipe, steps, images
        self.size = pipe.unet.config.sample_size * vae_factor(pipe)
        controlnet = start_controlnet(pipe, 3, Rng(0), base="benchmark").requires_grad_(False).eval()
        null = NullCondition(3, (self.size, self.size), learned=False)
        null.initialize(Rng(0))
        self.network = ScribbleNetwork(pipe.unet, controlnet, null).eval()
        generator = torch.Generator().manual_seed(0)
        self.text = torch.randn(77, pipe.unet.config.cross_attention_dim, generator=generator)
        self.masks = torch.randint(0, CLASSES, (images, self.size, self.size), generator=generator).to(torch.uint8)
        self.hints = RgbCodec(range(CLASSES)).encode(self.masks)
        self.real = torch.randint(0, 256, (images, self.size, self.size, 3), generator=generator).to(torch.uint8)
        self.stock = StableDiffusionControlNetImg2ImgPipeline(
            vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet,
            controlnet=controlnet, scheduler=make_scheduler("ddim", pipe.scheduler.config), safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        self.stock.set_progress_bar_config(disable=True)

    def generator(self, **options: Any) -> GivenBase:
        """Return a generator with options."""
        settings = {"steps": self.steps, "guidance_scale": 2.0, "batch_size": self.images, **options}
        return GivenBase(ScribbleGenOptions(**settings), self.pipe, self.network, self.text)

    @torch.inference_mode()
    def pipeline(self) -> None:
        """Sample with diffusers; ``strength`` keeps that share of the steps, so it is asked for more of them."""
        text = self.text.expand(self.images, -1, -1)
        self.stock(
            prompt_embeds=text, negative_prompt_embeds=text, image=self.real.movedim(-1, 1) / 255,
            control_image=self.hints,
            strength=STRENGTH, num_inference_steps=round(self.steps / STRENGTH), guidance_scale=2.0,
            controlnet_conditioning_scale=1.0, height=self.size, width=self.size, output_type="np",
            generator=[torch.Generator().manual_seed(i) for i in range(self.images)],
        )  # fmt: skip

    def ours(self, generator: GivenBase) -> None:
        """Sample with the generator, the encode ratios taking turns."""
        # Copies: the generator would keep the latents of images that it has seen in the call before.
        pairs = zip(self.real.numpy().copy(), self.masks.numpy(), strict=True)
        draws = [
            Draw(Sample(f"s{i}", image, mask), i % generator.samples_per_condition, i)
            for i, (image, mask) in enumerate(pairs)
        ]
        generator.generate(draws, ignore_index=LABELS.ignore_index)

    def calls(self, function: Any) -> list[int]:
        """Return the rows of every call of the UNet."""
        rows: list[int] = []
        hook = self.pipe.unet.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
        function()
        hook.remove()
        return rows


def measure(name: str, setting: Setting, *, runs: int) -> list[Row]:
    """Return the rows of one model."""
    plain = setting.generator(encode_ratio=STRENGTH)
    if setting.calls(lambda: setting.ours(plain)) != setting.calls(setting.pipeline):
        raise SystemExit("the two loops do not call the UNet equally often")
    times = alternate({"ours": lambda: setting.ours(plain), "pipeline": setting.pipeline}, runs=runs)
    shares = [ours / stock for ours, stock in zip(times["ours"], times["pipeline"], strict=True)]
    rows = [
        compare(f"{name}: generator, baseline diffusers' pipeline", times, candidate="ours", baseline="pipeline"),
        row(f"{name}: generator over pipeline, bound {BOUND}", shares, BOUND, "x"),
    ]
    scaled, fixed = (setting.generator(encode_ratio=ADAPTIVE_LEVELS, steps_mode=mode) for mode in ("scaled", "fixed"))
    times = alternate({"scaled": lambda: setting.ours(scaled), "fixed": lambda: setting.ours(fixed)}, runs=runs)
    return [*rows, compare(f"{name}: scaled steps, baseline fixed", times, candidate="scaled", baseline="fixed")]


def main() -> None:
    """Measure on genaug-tiny and, with --sd15, at the size of Stable Diffusion 1.5."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--sd15", action="store_true", help="many minutes on a CPU, 6 GB of memory")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    tiny = load_pipeline("genaug-tiny", root=Path(), registry=default_registry())
    setting = Setting(tiny, steps=options.steps, images=6)
    rows = measure(f"genaug-tiny, 6 images, {options.steps} steps", setting, runs=options.runs)
    if options.sd15:
        setting = Setting(sd15_pipeline(), steps=2, images=1)
        rows += measure("Stable Diffusion 1.5 size, 1 image, 2 steps", setting, runs=max(2, options.runs // 2))
    emit(rows, options.json)


if __name__ == "__main__":
    main()
