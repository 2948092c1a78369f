"""Adapting: the loss is the equation's, it falls, a killed training resumes to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genaug import LabelSpace, Registry, Rng, Sample
from genaug.errors import AdapterError, SampleError
from genaug_diffusion.config import TrainingOptions
from genaug_diffusion.testing import make_pipeline
from genaug_diffusion.training import AdapterTrainer, Row
from genaug_matchmask.config import MatchMaskOptions
from genaug_matchmask.generator import MatchMaskGenerator


def make_generator(base: Path, **training) -> MatchMaskGenerator:
    options = {"steps": 12, "learning_rate": 1e-2, "checkpoint_every": 4, "validate_every": 4, "preview_images": 2}
    chosen = MatchMaskOptions(
        base=str(base), preset="fast", steps=2, training=TrainingOptions(**{**options, **training})
    )
    return MatchMaskGenerator(chosen, registry=Registry([]))


def same_files(a: Path, b: Path) -> bool:
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file())
    return all((a / f).read_bytes() == (b / f).read_bytes() for f in files)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_mean_squared_error_of_the_noise(base_folder, samples, labels, prediction: str) -> None:
    generator = make_generator(base_folder)
    generator.load_base(labels)
    generator.training_scheduler.register_to_config(prediction_type=prediction)
    from genaug_matchmask.task import LayoutTask

    pipe = generator.pipe
    task = LayoutTask(
        pipe, generator.conditioner, samples, resolution=64, flips=True, scheduler=generator.training_scheduler
    )
    row = Row(2, True, 400, 99)
    got = task.losses(pipe.unet, [Row(0, False, 10, 1), row])[1]
    image = np.asarray(Image.fromarray(samples[2].image).resize((64, 64), Image.Resampling.BICUBIC))[:, ::-1].copy()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    noise = torch.Generator().manual_seed(99)
    posterior = pipe.vae.encode(pixels).latent_dist
    z = (posterior.mean + posterior.std * torch.randn((1, 4, 16, 16), generator=noise)) * pipe.vae.config.scaling_factor
    eps = torch.randn((1, 4, 16, 16), generator=noise)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = (1 - betas).cumprod(0)[400]
    noisy = signal.sqrt() * z + (1 - signal).sqrt() * eps
    target = eps if prediction == "epsilon" else signal.sqrt() * eps - (1 - signal).sqrt() * z
    predicted = pipe.unet(
        noisy, torch.tensor([400]), generator.conditioner.embed(task.prompts[2].input_ids)[None]
    ).sample
    torch.testing.assert_close(got, (predicted - target).square().mean(), rtol=1e-4, atol=1e-5)


def test_the_loss_falls_on_a_fixed_tiny_set(base_folder, samples, labels, tmp_path) -> None:
    generator = make_generator(base_folder, steps=60, checkpoint_every=60, preview_images=0, batch_size=8)
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(0))
    losses = json.loads((tmp_path / "a" / "training.json").read_text())["losses"]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.02


def test_a_killed_training_resumes_to_the_same_bytes(base_folder, samples, labels, tmp_path, monkeypatch) -> None:
    whole = make_generator(base_folder, holdout=0.25)
    assert not whole.adapted(tmp_path / "whole")
    record = whole.adapt(samples, tmp_path / "whole", labels=labels, rng=Rng(1))
    assert whole.adapted(tmp_path / "whole")
    assert (record["samples"], record["held_out"], record["steps"]) == (4, 1, 12)

    step = AdapterTrainer._step

    def killed(self, number: int) -> float:
        if number == 10:
            raise KeyboardInterrupt
        return step(self, number)

    generator = make_generator(base_folder, holdout=0.25)
    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            generator.adapt(samples, tmp_path / "cut", labels=labels, rng=Rng(1))
    assert not generator.adapted(tmp_path / "cut")
    started = []
    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "_step", lambda self, n: started.append(n) or step(self, n))
        generator.adapt(samples, tmp_path / "cut", labels=labels, rng=Rng(1))
    assert started == [8, 9, 10, 11]
    assert same_files(tmp_path / "whole", tmp_path / "cut")


def test_micro_batches_and_checkpointing_give_the_same_adapter(base_folder, samples, labels, tmp_path) -> None:
    states = []
    for name, options in [("a", {}), ("b", {"micro_batch_size": 1}), ("c", {"gradient_checkpointing": True})]:
        generator = make_generator(base_folder, preview_images=0, steps=4, learning_rate=1e-3, **options)
        generator.adapt(samples, tmp_path / name, labels=labels, rng=Rng(1))
        generator.load_adapted(tmp_path / name)
        generator.prepare(labels)
        states.append(generator.adapter.state_dict())
    for other in states[1:]:
        for name, value in states[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-4)


def test_half_precision_trains_float32_adapters(base_folder, samples, labels, tmp_path) -> None:
    chosen = MatchMaskOptions(
        base=str(base_folder), preset="fast", steps=2, dtype="bfloat16",
        training=TrainingOptions(steps=3, checkpoint_every=3, preview_images=1, learning_rate=1e-3),
    )  # fmt: skip
    generator = MatchMaskGenerator(chosen, registry=Registry([]))
    record = generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    assert np.isfinite(record["final_loss"])
    assert (tmp_path / "a" / "previews" / "step_000003.png").is_file()
    generator.load_adapted(tmp_path / "a")
    generator.prepare(labels)
    assert generator.pipe.unet.dtype == torch.bfloat16
    from genaug.types import Draw

    (sample,) = generator.generate([Draw(samples[0], 0, 5)], ignore_index=255)
    assert sample.image.std() > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_resumes_and_reloads_to_the_bit(
    base_folder, samples, labels, tmp_path, monkeypatch, dtype
) -> None:
    def make() -> MatchMaskGenerator:
        training = TrainingOptions(steps=6, checkpoint_every=2, preview_images=0, learning_rate=1e-3, max_grad_norm=1.0)
        options = MatchMaskOptions(base=str(base_folder), dtype=dtype, training=training)
        return MatchMaskGenerator(options, registry=Registry([]))

    make().adapt(samples, tmp_path / "whole", labels=labels, rng=Rng(1))
    step = AdapterTrainer._step

    def killed(self, number: int) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            make().adapt(samples, tmp_path / "cut", labels=labels, rng=Rng(1))
    make().adapt(samples, tmp_path / "cut", labels=labels, rng=Rng(1))
    assert same_files(tmp_path / "whole", tmp_path / "cut")
    generator = make()
    generator.load_adapted(tmp_path / "cut")
    generator.prepare(labels)
    saved = load_file(tmp_path / "cut" / "adapter_model.safetensors")
    assert all(torch.equal(saved[n], v) for n, v in generator.adapter.state_dict().items())


def test_the_best_held_out_weights_are_kept_and_patience_stops(base_folder, samples, labels, tmp_path) -> None:
    generator = make_generator(
        base_folder, steps=40, learning_rate=3.0, holdout=0.25, patience=2, validate_every=2, preview_images=0
    )
    record = generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    curve = json.loads((tmp_path / "a" / "training.json").read_text())["validation"]
    best = min(curve, key=lambda item: item[1])
    assert record["stopped_early"]
    assert record["steps"] < 40
    assert (record["best_step"], record["held_out_loss"]) == (best[0], best[1])
    kept = load_file(tmp_path / "a" / "adapter_model.safetensors")
    state = load_file(tmp_path / "a" / "checkpoint.safetensors")
    assert all(torch.equal(v, state[f"best.{n}"]) for n, v in kept.items())
    assert any(not torch.equal(v, state[f"parameter.{n}"]) for n, v in kept.items())
    assert record["best_step"] == record["steps"] - 4


def test_more_steps_go_on_from_the_checkpoint(base_folder, samples, labels, tmp_path, monkeypatch) -> None:
    make_generator(base_folder, steps=8, preview_images=0).adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    longer = make_generator(base_folder, steps=12, preview_images=0)
    assert not longer.adapted(tmp_path / "a")
    assert longer.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))["steps"] == 12
    straight = make_generator(base_folder, steps=12, preview_images=0)
    straight.adapt(samples, tmp_path / "b", labels=labels, rng=Rng(1))
    name = "adapter_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_checkpoint_of_another_training_is_refused(base_folder, samples, labels, tmp_path) -> None:
    make_generator(base_folder, steps=4).adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    for changed, data in [(make_generator(base_folder, steps=4), samples[:3]),
                          (make_generator(base_folder, steps=4, learning_rate=1e-3), samples)]:  # fmt: skip
        with pytest.raises(AdapterError, match="checkpoint of another training"):
            changed.adapt(data, tmp_path / "a", labels=labels, rng=Rng(1))
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before


def test_the_base_is_itself_again_after_adapting(base_folder, samples, labels, tmp_path, probe_unet) -> None:
    generator = make_generator(base_folder, steps=2, preview_images=0)
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    assert torch.equal(probe_unet(generator.pipe.unet), probe_unet(make_pipeline().unet))


def test_samples_of_several_sizes_train_together(base_folder, labels, samples, tmp_path) -> None:
    tall = Sample("tall", np.ascontiguousarray(samples[0].image.transpose(1, 0, 2)), samples[0].mask.T.copy())
    chosen = MatchMaskOptions(
        base=str(base_folder), size_mode="keep_aspect", preset="fast", steps=2,
        training=TrainingOptions(steps=6, checkpoint_every=6, preview_images=2),
    )  # fmt: skip
    generator = MatchMaskGenerator(chosen, registry=Registry([]))
    assert generator.adapt([samples[0], tall], tmp_path / "a", labels=labels, rng=Rng(0))["steps"] == 6


def test_rows_never_mix_sizes_and_depend_on_the_step_alone(samples, tmp_path) -> None:
    class Task:
        sizes, timesteps = ("a", "b", "a", "b", "a"), 1000

    trainer = AdapterTrainer.__new__(AdapterTrainer)
    trainer.task, trainer.train, trainer.rng = Task(), [0, 1, 2, 3], Rng(5)
    trainer.options = TrainingOptions(batch_size=6)
    drawn = [trainer.draw_rows(step) for step in range(200)]
    assert drawn[7] == trainer.draw_rows(7)
    for rows in drawn:
        assert len(rows) == 6
        assert len({Task.sizes[r.index] for r in rows}) == 1
    everything = [r for rows in drawn for r in rows]
    assert {r.index for r in everything} == {0, 1, 2, 3}
    assert 0.4 < np.mean([r.flip for r in everything]) < 0.6
    assert abs(np.mean([r.timestep for r in everything]) - 499.5) < 40
    assert len({r.seed for r in everything}) == len(everything)


def test_nothing_labelled_is_an_error(base_folder, tmp_path) -> None:
    empty = Sample("e", np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 255, np.uint8))
    with pytest.raises(SampleError, match="no labelled pixel"):
        make_generator(base_folder).adapt([empty], tmp_path / "a", labels=LabelSpace({1: "dog"}), rng=Rng(0))
    assert not (tmp_path / "a").exists()


def test_the_adapter_works_on_masks_with_other_names_but_says_so(
    base_folder, samples, labels, tmp_path, caplog
) -> None:
    generator = make_generator(base_folder, steps=2, preview_images=0)
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    other = make_generator(base_folder)
    other.load_adapted(tmp_path / "a")
    other.prepare(LabelSpace({1: "dog", 2: "unicorn"}))
    assert "not trained on these class names: unicorn" in caplog.text


def test_masks_are_flipped_before_they_are_downsampled(base_folder, samples, labels) -> None:
    generator = make_generator(base_folder)
    generator.load_base(labels)
    from genaug_matchmask.task import LayoutTask

    task = LayoutTask(
        generator.pipe, generator.conditioner, samples, resolution=64, flips=True,
        scheduler=generator.training_scheduler,
    )  # fmt: skip
    flipped = task._layout([Row(0, True, 0, 0)])
    by_hand = generator.conditioner.masks([task.labels[0][:, ::-1].copy()], [task.prompts[0]], (64, 64), 4)
    assert all(torch.equal(flipped[k], by_hand[k]) for k in by_hand)
    straight = task._layout([Row(0, False, 0, 0)])
    assert any(not torch.equal(flipped[k], straight[k]) for k in straight)
