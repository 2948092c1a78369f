"""Fixtures on the tiny random pipeline of `genaug_diffusion.testing`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from genaug import LabelSpace, Rng, Sample
from genaug_diffusion.layout import build_layout_prompt, layout_masks, tokenize_names
from genaug_diffusion.testing import make_pipeline
from genaug_matchmask.adapter import LTAdapter

torch.set_num_threads(1)

NAMES = {1: "dog", 4: "cat", 9: "potted plant", 12: "zebra"}


def randomize(adapter: LTAdapter, seed: int = 0, scale: float = 0.1) -> LTAdapter:
    """Give every adapter weight a random value: zero LoRA and zero heads hide bugs."""
    with torch.no_grad():
        for name, parameter in adapter.named_parameters().items():
            values = torch.randn(parameter.shape, generator=Rng(seed).child(name).torch())
            parameter.copy_(scale * values)
    return adapter


class Probe:
    """Calls a UNet on one fixed input, with and without a layout."""

    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([10, 900])

    def __init__(self) -> None:
        pipe = make_pipeline()
        tokens = tokenize_names(pipe.tokenizer, NAMES)
        prompt = build_layout_prompt(pipe.tokenizer, tokens, {1: 2, 9: 1})
        self.text = pipe.text_encoder(prompt.input_ids)[0].detach().repeat(2, 1, 1)
        labels = torch.full((2, 64, 64), 255)
        labels[:, :30] = 1
        labels[0, 30:, :40] = 9
        self.layout = layout_masks(labels, prompt.token_class[None].repeat(2, 1), (16, 16), levels=2)

    @torch.no_grad()
    def __call__(self, unet: Any, layout: Any = None, *, rows: slice = slice(None), t: Any = None, **more: Any) -> Any:
        kwargs = {**({"layout": {k: v[rows] for k, v in layout.items()}} if layout else {}), **more}
        steps = self.steps[rows] if t is None else t
        return unet(self.x[rows], steps, self.text[rows], cross_attention_kwargs=kwargs or None).sample


@pytest.fixture(scope="session")
def probe_unet() -> Probe:
    return Probe()


@pytest.fixture(name="randomize")
def randomize_fixture() -> Callable[..., LTAdapter]:
    return randomize


@pytest.fixture
def pipe() -> StableDiffusionPipeline:
    return make_pipeline()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_pipeline().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def labels() -> LabelSpace:
    return LabelSpace(NAMES)


@pytest.fixture
def samples(labels: LabelSpace) -> list[Sample]:
    """Four 64x80 pairs: blocks of classes, a strip of ignored pixels, the image in the class's colour plus noise."""
    rng = Rng(3).numpy()
    result = []
    for i in range(4):
        mask = rng.choice([1, 4, 9], size=(4, 4)).astype(np.uint8).repeat(16, 0).repeat(20, 1)
        mask[:3] = 255
        image = labels.colorize(mask) // 2 + rng.integers(0, 60, size=(64, 80, 3), dtype=np.uint8)
        result.append(Sample(f"s{i}", image.astype(np.uint8), mask))
    return result
