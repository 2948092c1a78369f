"""Fixtures on the tiny random pipeline of `genaug_diffusion.testing`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from genaug import LabelSpace, Registry, Rng, Sample
from genaug_diffusion.testing import make_pipeline
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.generator import ScribbleGenGenerator
from genaug_scribblegen.network import ScribbleNetwork, start_controlnet
from genaug_scribblegen.null_condition import NullCondition

torch.set_num_threads(1)

NAMES = {0: "background", 1: "dog", 4: "cat", 9: "potted plant"}


def make_network(
    pipe: StableDiffusionPipeline, channels: int = 3, *, size: tuple[int, int] = (64, 64), spread: float = 0.2
) -> ScribbleNetwork:
    """A ControlNet whose zero convolutions are not zero: those would hide bugs."""
    controlnet = start_controlnet(pipe, channels, Rng(0), base="tiny")
    with torch.no_grad():
        for name, parameter in controlnet.named_parameters():
            if "controlnet" in name:
                values = torch.randn(parameter.shape, generator=Rng(0).child(name).torch())
                parameter.copy_(spread * values)
    null = NullCondition(channels, size)
    null.initialize(Rng(1))
    return ScribbleNetwork(pipe.unet, controlnet, null).eval()


@pytest.fixture(scope="session", name="make_network")
def make_network_fixture() -> Callable[..., ScribbleNetwork]:
    return make_network


@pytest.fixture
def pipe() -> StableDiffusionPipeline:
    return make_pipeline()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_pipeline().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def labels() -> LabelSpace:
    return LabelSpace(NAMES)


@pytest.fixture(scope="session")
def samples(labels: LabelSpace) -> list[Sample]:
    """Four 64x80 pairs: three thin strokes each, and images of coloured blocks."""
    rng = Rng(3).numpy()
    result = []
    for i in range(4):
        mask = np.full((64, 80), 255, np.uint8)
        for class_id in rng.choice([0, 1, 4, 9], size=3, replace=False).tolist():
            row, column = rng.integers(4, 60), rng.integers(0, 40)
            mask[row : row + 3, column : column + 35] = class_id
        image = rng.integers(0, 256, size=(4, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(20, 1)
        result.append(Sample(f"s{i}", image, mask))
    return result


@pytest.fixture
def make_generator(base_folder: Path) -> Callable[..., ScribbleGenGenerator]:
    """Build a generator with few steps; `training` takes its options as a dict."""

    def make(**options) -> ScribbleGenGenerator:
        training = {
            "steps": 6, "batch_size": 2, "learning_rate": 1e-2, "checkpoint_every": 2, "preview_images": 0,
            **options.pop("training", {}),
        }  # fmt: skip
        settings = {"base": str(base_folder), "steps": 2, "encode_ratio": (0.5, 1.0), "batch_size": 8, **options}
        return ScribbleGenGenerator(ScribbleGenOptions(**settings, training=training), registry=Registry([]))

    return make
