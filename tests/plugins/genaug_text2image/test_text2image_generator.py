"""The generator on tiny real pipelines of Stable Diffusion, SDXL and Flux."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from diffusers import (
    DDPMScheduler,
    KandinskyV22Pipeline,
    QwenImagePipeline,
    UNet2DConditionModel,
    VQModel,
)

from genaug.errors import ConfigError, MissingDependencyError, SampleError
from genaug.registry import is_installed
from genaug.testing import GeneratorContract
from genaug.types import Draw, Prompt, Refused, Sample
from genaug_text2image.config import Text2ImageOptions
from genaug_text2image.generator import Text2Image
from genaug_text2image.pipeline import call_options, own_resolution

LONG = "a road with a car. " * 40


def draw(name: str, seed: int, *, text: str = "a road, a car", size: tuple[int, int] = (32, 48)) -> Draw:
    return Draw(Sample(name, prompt=Prompt(text, size), meta={"file_name": f"{name}.png"}), 0, seed)


@pytest.fixture(scope="module")
def make(bases, labels):
    prepared: dict[tuple, Text2Image] = {}

    def generator(base: str, **options) -> Text2Image:
        key = (base, *sorted(options.items()))
        if key not in prepared:
            given = {"steps": 2, "batch_size": 3, "max_sequence_length": 48 if base == "flux" else None, **options}
            prepared[key] = Text2Image(Text2ImageOptions(base=str(bases(base)), **given))
            prepared[key].prepare(labels)
        return prepared[key]

    return generator


@pytest.mark.parametrize("base", ["sd", "sdxl", "flux"])
def test_an_image_depends_on_its_seed_and_prompt_and_not_on_the_batch(make, base) -> None:
    generator = make(base)
    draws = [draw("a", 1), draw("b", 2, text="a tree"), draw("c", 3, text="sky")]
    together = generator.generate(draws, ignore_index=255)
    alone = [generator.generate([one], ignore_index=255)[0] for one in draws]
    for one, other, of in zip(together, alone, draws, strict=True):
        assert one.mask is None
        assert one.image.shape == (32, 48, 3)
        assert one.id == of.key
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
    assert np.array_equal(generator.generate(draws, ignore_index=255)[1].image, together[1].image)
    other_seed = generator.generate([draw("a", 9)], ignore_index=255)[0]
    other_words = generator.generate([draw("a", 1, text="tree tree tree")], ignore_index=255)[0]
    assert not np.array_equal(other_seed.image, together[0].image)
    assert not np.array_equal(other_words.image, together[0].image)
    assert together[0].meta["prompt"] == "a road, a car"
    assert together[0].meta["condition"] == {"file_name": "a.png"}


class TestText2ImageContract(GeneratorContract):
    sizes = ((32, 48), (30, 41))

    @pytest.fixture(autouse=True)
    def _make(self, make, labels) -> None:
        self.make, self.labels = make, labels

    def make_generator(self) -> Text2Image:
        return self.make("sd")

    def conditions(self, size: tuple[int, int]) -> list[Sample]:
        return [draw(name, 0, text=text, size=size).condition for name, text in (("a", "a road"), ("b", "a tree"))]


def test_images_are_sampled_at_allowed_sizes_and_resized_to_the_one_asked_for(make) -> None:
    (sample,) = make("flux").generate([draw("a", 1, size=(30, 41))], ignore_index=255)
    assert sample.image.shape == (30, 41, 3)
    assert sample.meta["sampled_at"] == [32, 48]
    (sample,) = make("sd").generate([draw("a", 1, size=(30, 60))], ignore_index=255)
    assert sample.image.shape == (30, 60, 3)
    assert sample.meta["sampled_at"] == [48, 96]  # 45 x 91 has the area of its own 64 x 64
    (sample,) = make("sd", resolution=32).generate([draw("a", 1, size=(64, 64))], ignore_index=255)
    assert sample.meta["sampled_at"] == [32, 32]


def test_sizes_that_a_pipeline_floors_are_an_error(make) -> None:
    generator = make("flux", multiple=1)
    with pytest.raises(SampleError, match=r"asked for \(30, 41\) and made \(16, 32\)"):
        generator.generate([draw("a", 1, size=(30, 41))], ignore_index=255)


def test_prompts_that_are_cut_are_named_once_for_every_encoder(make, caplog) -> None:
    generator = make("flux", guidance_scale=2.0)
    fits = "car " * 44  # 44 words and 2 special tokens for CLIP, 44 and 1 for T5
    draws = [draw("long", 1, text=LONG), draw("short", 2), draw("middle", 3, text=fits)]
    with caplog.at_level(logging.WARNING, logger="genaug"):
        samples = generator.generate(draws, ignore_index=255)
        generator.generate(draws, ignore_index=255)
    said = [r.getMessage() for r in caplog.records if r.name == "genaug"]
    clip, t5 = samples[0].meta["cut"]["text_encoder"], samples[0].meta["cut"]["text_encoder_2"]
    assert (clip["limit"], t5["limit"]) == (77, 48)
    counts = [len(getattr(generator.pipe, name)(LONG).input_ids) for name in ("tokenizer", "tokenizer_2")]
    assert [clip["tokens"], t5["tokens"]] == counts
    assert said == [
        f"text_encoder reads 77 tokens of a prompt and cuts long ({counts[0]})",
        f"text_encoder_2 reads 48 tokens of a prompt and cuts long ({counts[1]})",
    ]
    assert samples[1].meta["cut"] == samples[2].meta["cut"] == {}


def test_an_encoder_that_reads_all_of_it_is_named_too(make, caplog) -> None:
    generator = make("flux", max_sequence_length=512, guidance_scale=1.0)
    text = "zz " * 30  # letters: many tokens for CLIP's bytes
    with caplog.at_level(logging.WARNING, logger="genaug"):
        (sample,) = generator.generate([draw("a", 1, text=text * 2)], ignore_index=255)
    assert list(sample.meta["cut"]) == ["text_encoder"]
    assert "text_encoder_2 reads all of it" in caplog.text


def test_what_decides_the_pixels_is_recorded(make) -> None:
    told = make("flux").describe()
    assert told["pipeline"] == "FluxPipeline"
    assert (told["num_inference_steps"], told["guidance_scale"], told["max_sequence_length"]) == (2, 3.5, 48)
    assert told["watermark"] is False
    assert told["safety_checker"] is False
    assert told["resolution"] is None
    plain = make("sd", steps=None).describe()
    assert (plain["num_inference_steps"], plain["resolution"]) == (50, 64)
    schnell = make("schnell", steps=None).describe()
    assert [schnell[k] for k in ("num_inference_steps", "guidance_scale", "max_sequence_length")] == [4, 0.0, 256]


def test_flagged_images_are_dropped_and_logged(make, monkeypatch, caplog) -> None:
    generator = make("sd")
    call = type(generator.pipe).run_safety_checker
    monkeypatch.setattr(
        type(generator.pipe),
        "run_safety_checker",
        lambda self, image, *rest: (call(self, image, *rest)[0], [False, True]),
    )
    first, second = generator.generate([draw("a", 1), draw("b", 2)], ignore_index=255)
    assert isinstance(first, Sample)
    assert second == Refused("the base's safety checker flagged the image")
    assert "b_0 is dropped" in caplog.text


def test_options_that_a_pipeline_makes_no_use_of_are_errors(make) -> None:
    with pytest.raises(ConfigError, match=r"generator\.negative_prompt: FluxPipeline makes no use of it"):
        make("flux", negative_prompt="fog")
    with pytest.raises(ConfigError, match=r"generator\.max_sequence_length"):
        make("sd", max_sequence_length=12)
    with pytest.raises(ConfigError, match=r"generator\.watermark: .* has no watermark"):
        make("flux", watermark=True)


def test_a_negative_prompt_that_switches_guidance_on_is_taken() -> None:
    pipe = object.__new__(QwenImagePipeline)  # only its signature is looked at: true_cfg_scale is 4, that of Flux 1
    options = Text2ImageOptions(base="x", negative_prompt="fog")
    assert call_options(pipe, options)["negative_prompt"] == "fog"


def test_a_pipeline_that_works_on_pixels(make, monkeypatch) -> None:
    generator = make("if")
    assert generator.describe()["resolution"] == 32
    run = type(generator.pipe).run_safety_checker
    monkeypatch.setattr(
        type(generator.pipe), "run_safety_checker", lambda self, *given: (run(self, *given)[0], [True, False], None)
    )
    first, second = generator.generate([draw("a", 1), draw("b", 2)], ignore_index=255)
    assert first == Refused("the base's safety checker flagged the image")
    assert second.image.shape == (32, 48, 3)
    assert second.meta["sampled_at"] == [32, 32]  # 26 x 39 has the area of its own 32 x 32


def test_a_pipeline_whose_size_cannot_be_told_is_named() -> None:
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        mid_block_type=None, norm_num_groups=4,
    )  # fmt: skip
    pipe = KandinskyV22Pipeline(unet, DDPMScheduler(), VQModel(block_out_channels=(8,), norm_num_groups=4))
    with pytest.raises(ConfigError, match=r"generator\.resolution: KandinskyV22Pipeline does not say how large"):
        own_resolution(pipe)


@pytest.mark.skipif(is_installed("imwatermark"), reason="the watermark's library is installed")
def test_a_watermark_needs_its_library_and_is_off_otherwise(make) -> None:
    assert make("sdxl").pipe.watermark is None
    with pytest.raises(MissingDependencyError, match="pip install invisible-watermark"):
        make("sdxl", watermark=True)


def test_negative_prompts_change_images(make) -> None:
    one, other = (
        make("sd", **more).generate([draw("a", 1)], ignore_index=255)[0] for more in ({}, {"negative_prompt": "car"})
    )
    assert not np.array_equal(one.image, other.image)


def test_a_base_that_is_none_is_named(labels, tmp_path) -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a Hub id"):
        Text2Image(Text2ImageOptions(base="nowhere")).prepare(labels)
    (tmp_path / "model_index.json").write_text('{"_class_name": "NoPipeline"}')
    with pytest.raises(ConfigError, match="could not be loaded"):
        Text2Image(Text2ImageOptions(base=str(tmp_path))).prepare(labels)


def test_masks_are_no_prompts(make) -> None:
    condition = Sample("a", mask=np.zeros((32, 48), np.uint8))
    with pytest.raises(ConfigError, match=r"conditions: 'a' is no prompt"):
        make("sd").generate([Draw(condition, 0, 1)], ignore_index=255)
