"""Adapting on scribbled images: what `genaug adapt` does for ScribbleGen."""

from __future__ import annotations

import logging
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
from genaug.types import Draw, Sample
from genaug_diffusion.adapter_folder import TAG
from genaug_diffusion.base import unet_fingerprint
from genaug_diffusion.curves import PREVIEWS, observer, save_rows
from genaug_diffusion.selection import Chosen, split, survey
from genaug_diffusion.training import AdapterTrainer, TrainingResult
from genaug_scribblegen.adapter_files import CONTROLNET, FORMAT, NULL
from genaug_scribblegen.checkpoint import save_adapter
from genaug_scribblegen.network import ScribbleNetwork, load_controlnet, scale_hint_encoder, start_controlnet
from genaug_scribblegen.null_condition import NullCondition, null_size
from genaug_scribblegen.place import WHERE, find_controlnet
from genaug_scribblegen.task import ScribbleTask

if TYPE_CHECKING:
    from genaug_scribblegen.generator import ScribbleGenGenerator

log = logging.getLogger("genaug")

#: Options that decide the adapter; the others (encode ratio, sampler ...) may change without adapting again.
_DECISIVE = (
    "base", "revision", "controlnet", "resolution", "size_mode", "hint", "null_learned", "null_shape", "prompt",
    "class_names", "unknown_class", "dtype", "training",
)  # fmt: skip


def training_key(generator: ScribbleGenGenerator) -> str:
    """Return a hash of every option that decides the adapter."""
    return digest(_decisive(generator))


def _decisive(generator: ScribbleGenGenerator) -> dict[str, Any]:
    options = generator.options.decisive()
    return {key: options[key] for key in _DECISIVE}


def is_adapted(generator: ScribbleGenGenerator, folder: Path) -> bool:
    """Return True if `folder` holds a finished adapter trained with the generator's options.

    Raises:
        AdapterError: It does, but its files are not what was written.
    """
    record = FORMAT.record(folder)
    if record is None or record.get("key") != training_key(generator):
        return False
    FORMAT.check_files(folder)
    return True


def adapt(
    generator: ScribbleGenGenerator, samples: Sequence[Sample], folder: Path, *, labels: LabelSpace, rng: Rng
) -> Mapping[str, Any]:
    """Train a ControlNet and a null condition on `samples` and write them to `folder`.

    The folder also gets ``training.json`` (losses), ``losses.png`` and ``previews/``. An interrupted call goes on from
    its last checkpoint and ends with the same bytes.

    Args:
        generator: Names the base model and every option.
        samples: Scribbled samples.
        folder: Adapter folder.
        labels: Class table.
        rng: Stream of this training.

    Returns:
        The training record that ``genaug_config.json`` holds too.

    Raises:
        SampleError: No sample has a scribbled pixel, or none has one at the size of the images.
        AdapterError: The checkpoint is damaged or another training's.
        StoreError: The operating system refused; the last checkpoint stays, and the same call goes on from it.
    """
    usable, data = survey(samples, labels)
    if not usable:
        raise SampleError("no scribbled pixel in any sample", where="adapt", allowed="at least one")
    generator.load_base(labels)
    options, pipe = generator.options, generator.pipe
    task = ScribbleTask(
        pipe,
        generator.codec,
        generator.prompter,
        generator.encoder,
        Chosen(samples, usable),
        resolution=generator.resolution,
        size_mode=options.size_mode,
        flips=options.training.flip_probability > 0,
        dropout=options.training.scribble_dropout,
        scheduler=generator.training_scheduler,
    )
    if not len(task):
        raise SampleError(
            f"no stroke of any sample is left at {generator.resolution} pixels",
            where="adapt",
            allowed="strokes that nearest-neighbour resizing does not lose",
            hint="Draw wider strokes, or raise generator.resolution",
        )
    train, held_out = split(len(task), options.training.holdout, rng)
    # The trainer compares the training options itself, because more steps may go on from a checkpoint.
    model = {key: value for key, value in _decisive(generator).items() if key != "training"}
    # Colours follow from the ids, and checkpoints without them are good.
    hint = {key: value for key, value in generator.codec.describe().items() if key != "colors"}
    for part in (folder, folder / PREVIEWS, folder / CONTROLNET):
        remove_temporary(part, TAG)
    shown = [samples[i] for i in usable[: options.training.preview_images]]
    with started(generator, rng) as network:
        if options.training.hint_init == "scaled":
            scale_hint_encoder(network.controlnet.controlnet_cond_embedding, task.some_hints())
        trainer = AdapterTrainer(
            network,
            network.trainable(),
            task,
            options.training,
            folder,
            rng=rng,
            identity=digest([data, unet_fingerprint(pipe.unet), model, hint]),
            train=train,
            held_out=held_out,
            on_checkpoint=observer(folder, partial(_preview, generator, network, shown, rng) if shown else None),
        )
        result = trainer.run()
        record = _record(generator, result, samples=len(task), held_out=len(held_out), data=data, rng=rng)
        if trainer.accelerator.is_main_process:
            about = _about(generator, labels, record)
            save_adapter(network, folder, base=options.base, revision=options.revision, about=about)
        trainer.accelerator.wait_for_everyone()
    return record


@contextmanager
def started(generator: ScribbleGenGenerator, rng: Rng) -> Iterator[ScribbleNetwork]:
    """Put a ControlNet to train and a null condition on the generator's UNet, which is as before afterwards."""
    options, pipe, unet = generator.options, generator.pipe, generator.pipe.unet
    channels = generator.codec.channels
    null = NullCondition(channels, null_size(options.null_shape, generator.resolution), learned=options.null_learned)
    null.initialize(rng.child("null"))
    if options.controlnet is None:
        controlnet = start_controlnet(pipe, channels, rng.child("controlnet"), base=options.base)
    else:
        place, local = find_controlnet(options.controlnet, root=generator.root, registry=generator.registry)
        controlnet = load_controlnet(pipe, place, channels, local=local)
        if local:
            null.take(Path(place).parent / NULL)
        else:
            log.warning(
                "%s: of a ControlNet named by a plain Hub id no null condition is looked for, so that one starts from "
                "noise; name an adapter of genaug as hf-hub:org/name",
                WHERE,
            )
    if options.training.gradient_checkpointing:
        for each in (unet, controlnet):
            each.enable_gradient_checkpointing()
    try:
        yield ScribbleNetwork(unet, controlnet, null.to(unet.device))
    finally:
        unet.disable_gradient_checkpointing()
        unet.requires_grad_(False).eval()


def _record(generator: ScribbleGenGenerator, result: TrainingResult, *, rng: Rng, **counts: Any) -> dict[str, Any]:
    import diffusers

    return {
        "key": training_key(generator),
        **counts,
        **result.summary(),
        "seed": rng.seed,
        "options": generator.options.training.model_dump(mode="json"),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }


def _about(generator: ScribbleGenGenerator, labels: LabelSpace, record: Mapping[str, Any]) -> dict[str, Any]:
    options = generator.options
    return {
        "labels": labels.to_dict(),
        "prompt": options.prompt,
        "class_names": options.class_names,
        "hint": generator.codec.describe(),
        "null_shape": options.null_shape,
        "null_learned": options.null_learned,
        "resolution": generator.resolution,
        "size_mode": options.size_mode,
        "sampler": {
            "encode_ratio": list(options.levels),
            "steps": options.steps,
            "steps_mode": options.steps_mode,
            "grid": options.grid,
            "leak_at_one": options.leak_at_one,
            "guidance_scale": options.guidance_scale,
        },
        "training": dict(record),
    }


def _preview(
    generator: ScribbleGenGenerator, network: ScribbleNetwork, samples: Sequence[Sample], rng: Rng, path: Path
) -> None:
    """Write rows of real image, scribble, and images of the lowest and highest encode ratio, always of one noise."""
    training = network.training
    network.eval()
    levels = generator.options.levels
    rows = []
    for sample in samples:
        assert sample.mask is not None  # ScribbleTask refuses samples without
        assert sample.image is not None
        row = [sample.image, generator.labels.colorize(sample.mask)]
        draw = Draw(sample, 0, rng.child("preview", sample.id).integer())
        for ratio in dict.fromkeys((levels[0], levels[-1])):
            (image,), _ = generator.sample_images(network, [draw], [ratio])
            row.append(np.zeros_like(sample.image) if image is None else image)
        rows.append(row)
    network.train(training)
    save_rows(rows, path)
