"""Adapting on few labels: what `genaug adapt` does for MatchMask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genaug.errors import SampleError
from genaug.labels import LabelSpace
from genaug.recipe import digest
from genaug.rng import Rng
from genaug.store.files import remove_temporary
from genaug.types import Sample
from genaug_diffusion.adapter_folder import TAG
from genaug_diffusion.base import unet_fingerprint
from genaug_diffusion.curves import PREVIEWS, observer, save_rows
from genaug_diffusion.selection import Chosen, split, survey
from genaug_diffusion.sizes import generation_size
from genaug_diffusion.training import AdapterTrainer, TrainingResult
from genaug_matchmask.adapter import CRITICAL_LAYERS, LTAdapter
from genaug_matchmask.adapter_files import FORMAT
from genaug_matchmask.checkpoint import check_weights, save_adapter
from genaug_matchmask.task import LayoutTask

if TYPE_CHECKING:
    from genaug_matchmask.generator import MatchMaskGenerator

#: Options that decide the adapter; the others (K, sampler ...) may change without adapting again.
_DECISIVE = (
    "base", "revision", "resolution", "size_mode", "mask_downsample", "overflow", "unknown_class", "background", "rank",
    "target_modules", "alpha_pool", "dtype", "training",
)  # fmt: skip


def training_key(generator: MatchMaskGenerator) -> str:
    """Return a hash of every option that decides the adapter."""
    return digest(_decisive(generator))


def _decisive(generator: MatchMaskGenerator) -> dict[str, Any]:
    options = generator.options.decisive()
    return {key: options[key] for key in _DECISIVE}


def is_adapted(generator: MatchMaskGenerator, folder: Path) -> bool:
    """Return True if `folder` holds a finished adapter trained with the generator's options.

    Raises:
        AdapterError: It does, but its files are not what was written.
    """
    record = FORMAT.record(folder)
    if record is None or record.get("key") != training_key(generator):
        return False
    check_weights(folder)
    return True


def adapt(
    generator: MatchMaskGenerator, samples: Sequence[Sample], folder: Path, *, labels: LabelSpace, rng: Rng
) -> Mapping[str, Any]:
    """Train an LT-Adapter on `samples` and write it to `folder`.

    The folder also gets ``training.json`` (losses), ``losses.png`` and ``previews/``. An interrupted call goes on from
    its last checkpoint and ends with the same adapter.

    Args:
        generator: Names the base model and every option.
        samples: Labelled samples.
        folder: Adapter folder.
        labels: Class table.
        rng: Stream of this training.

    Returns:
        The training record that ``genaug_config.json`` holds too.

    Raises:
        SampleError: No sample has a labelled pixel.
        AdapterError: The checkpoint is damaged or another training's.
        StoreError: The operating system refused; the last checkpoint stays, and the same call goes on from it.
    """
    usable, data = survey(samples, labels)
    if not usable:
        raise SampleError("no labelled pixel in any sample", where="adapt", allowed="at least one")
    generator.load_base(labels)
    options, pipe = generator.options, generator.pipe
    train, held_out = split(len(usable), options.training.holdout, rng)
    task = LayoutTask(
        pipe,
        generator.conditioner,
        Chosen(samples, usable),
        resolution=generator.resolution,
        flips=options.training.flip_probability > 0,
        scheduler=generator.training_scheduler,
    )
    # The trainer compares the training options itself, because more steps may go on from a checkpoint.
    model = {key: value for key, value in _decisive(generator).items() if key != "training"}
    for part in (folder, folder / PREVIEWS):
        remove_temporary(part, TAG)
    shown = [samples[i] for i in usable[: options.training.preview_images]]
    generator.starting = task.starting_noise()  # before the first preview
    with attached(generator, rng) as adapter:
        trainer = AdapterTrainer(
            pipe.unet,
            adapter.named_parameters(),
            task,
            options.training,
            folder,
            rng=rng,
            identity=digest([data, unet_fingerprint(pipe.unet), model]),
            train=train,
            held_out=held_out,
            on_checkpoint=observer(folder, partial(_preview, generator, shown, rng) if shown else None),
        )
        result = trainer.run()
        record = _record(generator, result, samples=len(usable), held_out=len(held_out), data=data, rng=rng)
        if trainer.accelerator.is_main_process:
            about, start = _about(generator, labels, record), generator.starting
            save_adapter(
                adapter, folder, base=options.base, revision=options.revision, about=about, starting=start
            )  # fmt: skip
        trainer.accelerator.wait_for_everyone()
    return record


@contextmanager
def attached(generator: MatchMaskGenerator, rng: Rng) -> Iterator[LTAdapter]:
    """Attach a fresh adapter to the generator's UNet; the UNet is the base again afterwards."""
    unet, options = generator.pipe.unet, generator.options
    adapter = LTAdapter(
        unet,
        rank=options.rank,
        target_modules=options.target_modules or CRITICAL_LAYERS,
        alpha_pool=options.alpha_pool,
    )
    adapter.initialize(rng.child("initialize"))
    if options.training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    try:
        yield adapter
    finally:
        unet.disable_gradient_checkpointing()
        adapter.detach()
        unet.requires_grad_(False).eval()


def _record(generator: MatchMaskGenerator, result: TrainingResult, *, rng: Rng, **counts: Any) -> dict[str, Any]:
    import diffusers
    import peft

    return {
        "key": training_key(generator),
        **counts,
        **result.summary(),
        "seed": rng.seed,
        "options": generator.options.training.model_dump(mode="json"),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__, "peft": peft.__version__},
    }


def _about(generator: MatchMaskGenerator, labels: LabelSpace, record: Mapping[str, Any]) -> dict[str, Any]:
    options = generator.options
    return {
        "labels": labels.to_dict(),
        "prompt": "class names present, ascending id, joined by one space",
        "resolution": generator.resolution,
        "size_mode": options.size_mode,
        "mask_downsample": options.mask_downsample,
        "overflow": options.overflow,
        "background": options.background,
        "sampler": {
            "preset": options.preset,
            "steps": generator.steps,
            "guidance_scale": options.guidance_scale,
            "guidance_start": options.guidance_start,
            "start_spread": options.start_spread,
        },
        "training": dict(record),
    }


def _preview(generator: MatchMaskGenerator, samples: Sequence[Sample], rng: Rng, path: Path) -> None:
    """Write rows of real image, mask and an image generated for the mask; its noise is the same at every checkpoint."""
    labels, training = generator.conditioner.labels, generator.pipe.unet.training
    generator.pipe.unet.eval()
    rows = []
    for sample in samples:
        assert sample.mask is not None  # LayoutTask refuses samples without
        assert sample.image is not None
        prompt = generator.conditioner.prompt(sample.mask, where=f"sample {sample.id}")
        size = generation_size(sample.size, generator.resolution, generator.options.size_mode)
        seed = rng.child("preview", sample.id).integer()
        images, _ = generator.sample_images([sample.mask], [prompt], size, [seed])
        made = np.zeros_like(sample.image) if images[0] is None else images[0]
        rows.append([sample.image, labels.colorize(sample.mask), made])
    generator.pipe.unet.train(training)
    save_rows(rows, path)
