"""Adapting: the loss is eq. 5, dropout takes the scribble alone, a killed training resumes to the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genaug import LabelSpace, Rng, Sample
from genaug.errors import AdapterError, ConfigError, SampleError
from genaug_diffusion.testing import make_pipeline
from genaug_diffusion.training import AdapterTrainer, Row
from genaug_scribblegen.config import ScribbleTrainingOptions
from genaug_scribblegen.network import check_base_takes_controlnet, scale_hint_encoder, start_controlnet
from genaug_scribblegen.null_condition import NullCondition, null_size
from genaug_scribblegen.task import ScribbleTask

NULL, WEIGHTS = "null_condition.safetensors", "controlnet/diffusion_pytorch_model.safetensors"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def make_task(generator, samples, labels, *, dropout: float, flips: bool = False) -> ScribbleTask:
    generator.load_base(labels)
    return ScribbleTask(
        generator.pipe, generator.codec, generator.prompter, generator.encoder, samples, resolution=64,
        size_mode="square", flips=flips, dropout=dropout, scheduler=generator.training_scheduler,
    )  # fmt: skip


# ---------------------------------------------------------------------- the loss


@pytest.mark.parametrize(("prediction", "dropped"), [("epsilon", False), ("epsilon", True), ("v_prediction", False)])
def test_the_loss_is_the_mean_squared_error_of_the_noise(
    make_generator, make_network, samples, labels, prediction: str, dropped: bool
) -> None:
    generator = make_generator()
    generator.load_base(labels)
    generator.training_scheduler.register_to_config(prediction_type=prediction)
    task = make_task(generator, samples, labels, dropout=float(dropped), flips=True)
    pipe = generator.pipe
    network = make_network(pipe).train()
    row = Row(2, True, 400, 99)
    with torch.no_grad():
        got = task.losses(network, [Row(0, False, 10, 1), row])[1]
    image = np.asarray(Image.fromarray(samples[2].image).resize((64, 64), Image.Resampling.BICUBIC))[:, ::-1].copy()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    noise = torch.Generator().manual_seed(99)
    posterior = pipe.vae.encode(pixels).latent_dist
    z = (posterior.mean + posterior.std * torch.randn((1, 4, 16, 16), generator=noise)) * pipe.vae.config.scaling_factor
    eps = torch.randn((1, 4, 16, 16), generator=noise)
    signal = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)[400]
    noisy = signal.sqrt() * z + (1 - signal).sqrt() * eps
    target = eps if prediction == "epsilon" else signal.sqrt() * eps - (1 - signal).sqrt() * z
    nearest = samples[2].mask[:, np.arange(64) * 80 // 64][:, ::-1]  # as torch places its cells
    palette = np.array([(224, 224, 192) if i == 255 else labels.color(i) for i in range(256)], np.uint8)
    hint = torch.from_numpy(palette[nearest]).permute(2, 0, 1)[None] / 255
    if dropped:
        hint = network.null.value[None]
    names = [labels.names[i] for i in np.unique(samples[2].mask) if i not in (0, 255)]
    prompt = "a high-quality, detailed, and professional image of " + ", ".join(names)
    tokens = pipe.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        text, t = pipe.text_encoder(tokens)[0], torch.tensor([400])
        down, middle = network.controlnet(noisy, t, text, hint, return_dict=False)
        predicted = pipe.unet(
            noisy, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
    torch.testing.assert_close(got, (predicted - target).square().mean(), rtol=1e-4, atol=1e-5)


class Recorder(torch.nn.Module):
    """A network that only remembers what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped: list[torch.Tensor] = []
        self.text: list[torch.Tensor] = []

    def forward(self, latents, timesteps, text, hints, dropped):
        self.dropped.append(dropped)
        self.text.append(text)
        return torch.zeros_like(latents)


def test_one_scribble_in_ten_is_dropped_and_the_text_never(make_generator, samples, labels) -> None:
    generator = make_generator()
    task, model = make_task(generator, samples, labels, dropout=0.1), Recorder()
    count = 3000
    rows = [Row(i % 4, False, 5, Rng(1).child(i).integer()) for i in range(count)]
    for i in range(0, count, 500):
        task.losses(model, rows[i : i + 500])
    dropped = torch.cat(model.dropped)
    assert abs(float(dropped.float().mean()) - 0.1) < 3 * (0.1 * 0.9 / count) ** 0.5
    expected = torch.stack([task.texts[task.prompts[i % 4]] for i in range(500)])
    assert all(torch.equal(text, expected) for text in model.text)
    model.eval()  # held-out losses drop nothing
    task.losses(model, rows[:500])
    assert not model.dropped[-1].any()


def test_only_dropped_rows_teach_the_null_condition_and_nothing_teaches_the_unet(pipe, make_network) -> None:
    network = make_network(pipe).train()
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([5, 500]), torch.randn(2, 77, 32), torch.rand(2, 3, 64, 64)
    for dropped, taught in [([False, False], False), ([True, False], True)]:
        network.zero_grad(set_to_none=True)
        network(*inputs, torch.tensor(dropped)).square().mean().backward()
        assert (network.null.value.grad.abs().sum() > 0) == taught  # a gradient of zeros keeps processes in step
        assert all(p.grad is not None for p in network.controlnet.parameters())
        assert all(p.grad is None for p in network.unet.parameters())


def test_the_null_condition_is_seeded_resized_and_broadcast() -> None:
    one, other = (NullCondition(4, null_size("spatial", 64)) for _ in range(2))
    state = torch.get_rng_state()
    one.initialize(Rng(1))
    other.initialize(Rng(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.value, other.value)
    values = one.value.detach()
    assert abs(float(values.mean())) < 0.05
    assert abs(float(values.std()) - 1) < 0.05
    assert one.value.requires_grad
    assert not NullCondition(4, (1, 1), learned=False).value.requires_grad
    assert torch.equal(one((64, 64))[0], one.value)
    assert torch.equal(one((32, 128))[0], one.value[:, ::2].repeat_interleave(2, 2))
    assert null_size("broadcast", 64) == (1, 1)
    flat = NullCondition(2, (1, 1))
    flat.initialize(Rng(1))
    assert torch.equal(flat((3, 5)), flat.value[None].expand(1, 2, 3, 5))


# ---------------------------------------------------------------------- the training


def test_a_killed_training_resumes_to_the_same_bytes(make_generator, samples, labels, tmp_path, monkeypatch) -> None:
    training = {"holdout": 0.25, "validate_every": 2, "preview_images": 1, "scribble_dropout": 0.5, "steps": 4}
    whole = make_generator(training=training)
    assert not whole.adapted(tmp_path / "whole")
    record = whole.adapt(samples, tmp_path / "whole", labels=labels, rng=Rng(1))
    assert whole.adapted(tmp_path / "whole")
    assert (record["samples"], record["held_out"], record["steps"]) == (4, 1, 4)
    step = AdapterTrainer._step

    def killed(self, number: int) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            make_generator(training=training).adapt(samples, tmp_path / "cut", labels=labels, rng=Rng(1))
    assert not whole.adapted(tmp_path / "cut")
    started = []
    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "_step", lambda self, n: started.append(n) or step(self, n))
        make_generator(training=training).adapt(samples, tmp_path / "cut", labels=labels, rng=Rng(1))
    assert started == [2, 3]
    assert tree(tmp_path / "whole") == tree(tmp_path / "cut")
    assert {WEIGHTS, NULL, "previews/step_000004.png", "losses.png"} < tree(tmp_path / "whole").keys()


def test_the_loss_falls_and_everything_learns(make_generator, samples, labels, tmp_path) -> None:
    training = {
        "steps": 9, "checkpoint_every": 9, "batch_size": 4, "scribble_dropout": 0.5, "holdout": 0.25,
        "validate_every": 3,
    }  # fmt: skip
    generator = make_generator(training=training)
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(0))
    (_, first), _, (_, last) = json.loads((tmp_path / "a" / "training.json").read_text())["validation"]
    assert last < first - 0.1
    start = NullCondition(3, (64, 64))
    start.initialize(Rng(0).child("null"))
    learned = load_file(tmp_path / "a" / NULL)["null_condition"]
    assert (learned - start.value).abs().max() > 0.01
    weights = load_file(tmp_path / "a" / WEIGHTS)
    fresh = start_controlnet(generator.pipe, 3, Rng(0).child("controlnet"), base="tiny").state_dict()
    assert all(not torch.equal(weights[name], value) for name, value in fresh.items())


def test_a_null_condition_that_is_not_learned_keeps_its_noise(make_generator, samples, labels, tmp_path) -> None:
    options = {"null_learned": False, "null_shape": "broadcast", "hint": "onehot"}
    generator = make_generator(**options, training={"steps": 2, "scribble_dropout": 0.0})
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(5))
    start = NullCondition(5, (1, 1))
    start.initialize(Rng(5).child("null"))
    assert torch.equal(load_file(tmp_path / "a" / NULL)["null_condition"], start.value)
    assert not any("null" in name for name in load_file(tmp_path / "a" / "checkpoint.safetensors"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains_float32_and_samples(make_generator, samples, labels, tmp_path, dtype: str) -> None:
    generator = make_generator(dtype=dtype, training={"steps": 2, "preview_images": 1, "learning_rate": 1e-3})
    record = generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    assert np.isfinite(record["final_loss"])
    assert all(v.dtype == torch.float32 for v in load_file(tmp_path / "a" / WEIGHTS).values())
    generator.load_adapted(tmp_path / "a")
    generator.prepare(labels)
    assert generator.network.controlnet.dtype == generator.pipe.unet.dtype == getattr(torch, dtype)
    from genaug.types import Draw

    (sample,) = generator.generate([Draw(samples[0], 0, 5)], ignore_index=255)
    assert sample.image.std() > 0


def test_micro_batches_and_checkpointing_give_the_same_adapter(make_generator, samples, labels, tmp_path) -> None:
    states = []
    for name, options in [("a", {}), ("b", {"micro_batch_size": 1}), ("c", {"gradient_checkpointing": True})]:
        training = {"steps": 2, "learning_rate": 1e-3, "scribble_dropout": 0.5, **options}
        make_generator(training=training).adapt(samples, tmp_path / name, labels=labels, rng=Rng(1))
        states.append(load_file(tmp_path / name / WEIGHTS) | load_file(tmp_path / name / NULL))
    for other in states[1:]:
        for name, value in states[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-4)


def test_the_learning_rate_is_constant_or_falls_to_zero(make_generator, samples, labels, tmp_path) -> None:
    constant = ScribbleTrainingOptions(steps=10)
    linear = ScribbleTrainingOptions(steps=10, schedule="linear", learning_rate=1.0)
    assert [constant.learning_rate_at(s) for s in (0, 9)] == [1e-4, 1e-4]
    assert [linear.learning_rate_at(s) for s in (0, 5, 9)] == [1.0, 0.5, pytest.approx(0.1)]


def test_more_steps_go_on_from_the_checkpoint_unless_the_schedule_is_for_fewer(
    make_generator, samples, labels, tmp_path
) -> None:
    for folder, steps in [("straight", 3), ("twice", 2), ("twice", 3)]:
        training = {"steps": steps, "checkpoint_every": 3}
        make_generator(training=training).adapt(samples, tmp_path / folder, labels=labels, rng=Rng(1))
    assert (tmp_path / "straight" / WEIGHTS).read_bytes() == (tmp_path / "twice" / WEIGHTS).read_bytes()
    make_generator(training={"steps": 2, "schedule": "linear"}).adapt(
        samples, tmp_path / "linear", labels=labels, rng=Rng(1)
    )
    state = load_file(tmp_path / "linear" / "checkpoint.safetensors")
    assert state["losses"][0] == load_file(tmp_path / "twice" / "checkpoint.safetensors")["losses"][0]
    with pytest.raises(AdapterError, match="another training"):
        make_generator(training={"steps": 3, "schedule": "linear"}).adapt(
            samples, tmp_path / "linear", labels=labels, rng=Rng(1)
        )


def test_the_best_held_out_weights_are_kept(make_generator, samples, labels, tmp_path) -> None:
    training = {
        "steps": 20, "learning_rate": 3.0, "holdout": 0.25, "patience": 1, "validate_every": 1, "checkpoint_every": 20
    }  # fmt: skip
    record = make_generator(training=training).adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    assert record["stopped_early"]
    assert record["best_step"] == record["steps"] - 1
    state = load_file(tmp_path / "a" / "checkpoint.safetensors")
    kept = {f"controlnet.{n}": v for n, v in load_file(tmp_path / "a" / WEIGHTS).items()}
    kept |= load_file(tmp_path / "a" / NULL)
    assert all(torch.equal(v, state[f"best.{n}"]) for n, v in kept.items())


def test_another_trainings_checkpoint_is_refused(make_generator, samples, labels, tmp_path) -> None:
    make_generator(training={"steps": 2}).adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    before = tree(tmp_path / "a")
    for changes, data in [({}, samples[:3]), ({"null_shape": "broadcast"}, samples), ({"prompt": "a photo"}, samples)]:
        generator = make_generator(**changes, training={"steps": 4})
        assert not generator.adapted(tmp_path / "a")
        with pytest.raises(AdapterError, match="checkpoint of another training"):
            generator.adapt(data, tmp_path / "a", labels=labels, rng=Rng(1))
    assert tree(tmp_path / "a") == before


def test_the_sampler_may_change_without_adapting_again(make_generator, samples, labels, tmp_path) -> None:
    make_generator(training={"steps": 2}).adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    changes = {"steps": 9, "encode_ratio": 0.3, "guidance_scale": 4.0, "grid": "released", "images_per_scribble": 3}
    assert make_generator(**changes, training={"steps": 2}).adapted(tmp_path / "a")
    assert not make_generator(training={"steps": 2, "scribble_dropout": 0.2}).adapted(tmp_path / "a")


def test_the_base_and_the_global_random_state_stay_as_they_were(make_generator, samples, labels, tmp_path) -> None:
    state, generator = torch.get_rng_state(), make_generator(training={"steps": 2})
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    assert torch.equal(torch.get_rng_state(), state)
    other = make_pipeline().unet.state_dict()
    assert all(torch.equal(v, other[n]) for n, v in generator.pipe.unet.state_dict().items())
    assert not generator.pipe.unet.training
    assert not any(p.requires_grad for p in generator.pipe.unet.parameters())


def test_flips_mirror_scribble_and_image_together(make_generator, samples, labels) -> None:
    task = make_task(make_generator(), samples, labels, dropout=0.0, flips=True)
    straight, mirrored = task.hints([Row(1, False, 0, 0)]), task.hints([Row(1, True, 0, 0)])
    assert torch.equal(mirrored, straight.flip(-1))
    assert not torch.equal(mirrored, straight)
    assert len(task.cache.moments[1]) == 2


def test_images_of_several_sizes_train_together(make_generator, samples, labels, tmp_path) -> None:
    tall = Sample("tall", np.ascontiguousarray(samples[0].image.transpose(1, 0, 2)), samples[0].mask.T.copy())
    generator = make_generator(size_mode="keep_aspect", training={"steps": 3, "preview_images": 2})
    assert generator.adapt([samples[0], tall], tmp_path / "a", labels=labels, rng=Rng(0))["steps"] == 3


# ---------------------------------------------------------------------- bad input


def test_nothing_scribbled_is_an_error(make_generator, tmp_path) -> None:
    empty = Sample("e", np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 255, np.uint8))
    with pytest.raises(SampleError, match="no scribbled pixel in any sample"):
        make_generator().adapt([empty], tmp_path / "a", labels=LabelSpace({1: "dog"}), rng=Rng(0))
    assert not (tmp_path / "a").exists()


def test_scribbles_that_resizing_loses_are_passed_over(make_generator, labels, tmp_path) -> None:
    samples = []
    for name, rows in (("lost", slice(97, 100)), ("seen", slice(98, 101))):
        mask = np.full((256, 256), 255, np.uint8)
        mask[rows] = 1
        samples.append(Sample(name, np.zeros((256, 256, 3), np.uint8), mask))
    generator = make_generator(training={"steps": 1})
    task = make_task(generator, samples, labels, dropout=0.0)
    assert len(task) == len(task.prompts) == len(task.sizes) == 1
    assert task.prompts[0].endswith(" of dog")
    assert make_generator(training={"steps": 1}).adapt(samples, tmp_path, labels=labels, rng=Rng(0))["samples"] == 1
    with pytest.raises(SampleError, match=r"adapt: no stroke of any sample is left at 64 pixels.*wider strokes"):
        generator.adapt(samples[:1], tmp_path / "none", labels=labels, rng=Rng(0))


def test_one_class_is_enough_and_empty_scribbles_are_left_out(make_generator, samples, tmp_path) -> None:
    mask = np.full((64, 64), 255, np.uint8)
    image = np.zeros((64, 64, 3), np.uint8)
    stroke = mask.copy()
    stroke[10] = 1
    data = [Sample("empty", image, mask), Sample("one", image, stroke)]
    record = make_generator(training={"steps": 1}).adapt(
        data, tmp_path / "a", labels=LabelSpace({1: "dog"}), rng=Rng(0)
    )
    assert record["samples"] == 1


@pytest.mark.parametrize(
    ("unet", "told"),
    [
        ({"in_channels": 9}, "9 input channels for 4 of the autoencoder"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim=8"),
        ({"num_class_embeds": 3}, "num_class_embeds=3"),
    ],
)
def test_a_base_that_cannot_have_a_controlnet(unet: dict, told: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"generator.base: 'sd/strange' cannot have a ControlNet: its UNet has {told}"
    ):
        check_base_takes_controlnet(make_pipeline(**unet), "sd/strange")


def test_what_diffusers_refuses_is_told_in_one_line() -> None:
    broken = make_pipeline()
    broken.unet.time_proj = torch.nn.Linear(3, 3)
    with pytest.raises(ConfigError, match=r"'sd/broken' cannot have a ControlNet: .*state_dict") as caught:
        start_controlnet(broken, 3, Rng(0), base="sd/broken")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- first weights of the hint encoder


def test_a_scaled_hint_encoder_tells_hints_apart_and_changes_nothing_yet(make_generator, samples, labels) -> None:
    generator = make_generator()
    task = make_task(generator, samples, labels, dropout=0.0)
    controlnet = start_controlnet(generator.pipe, generator.codec.channels, Rng(3), base="tiny")
    hints, encoder = task.some_hints(), controlnet.controlnet_cond_embedding
    assert len(hints) == len(samples)
    scale_hint_encoder(encoder, hints)
    with torch.no_grad():
        features = hints
        for layer in (encoder.conv_in, *encoder.blocks):
            features = layer(features)
            mean, deviation = features.mean((0, 2, 3)), features.std((0, 2, 3))
            torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
            torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-3, rtol=0)
            features = torch.nn.functional.silu(features)
        assert not encoder(hints).any()
