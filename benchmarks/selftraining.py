"""What the self-training benchmarks share: arms, models, one resumable training loop.

Every arm takes the same number of optimizer steps with the same labelled batches; arms with unlabelled images see as
many of them as labelled ones in a step. Images are flipped, scaled and cropped alike in all arms. The figure is the
mean IoU of the trained model itself, whose learning rate ends at zero; that of the teacher is kept beside it.

Three settings are not the ready recipes', because those belong to trainings of 40,000 steps and more of models that
were pre-trained. Every teacher averages over about a twentieth of the run (with a decay of 0.996 it would be the mean
of all weights until step 249, random ones included), but for plain pseudo-labels, whose teacher is the student. Arms
begin with a burn-in on labelled images, since a method without a threshold would learn from an untrained teacher
otherwise: the first fifth of their steps, or a training of its own, which all arms of a seed start from (`start`). And
terms on unlabelled images leave BatchNorm's running averages alone; arms called "averages updated" show the other way.

Models run in bfloat16 where the CPU multiplies that in hardware, which halves the time; the last layer is in float32.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, row
from query_models import mask2former
from torch import Tensor, nn
from tqdm.auto import tqdm

from genaug.config import merge, read_recipe
from genaug.registry import default_registry
from genaug_tiny.segmenter import UNet, evaluate_miou, has_fast_bfloat16, one_cycle, random_geometry
from genaug_torch import OutputReader, SemiSupervisedStep
from genaug_torch.outputs import OutputKind

Arrays = tuple[np.ndarray, np.ndarray]

FIXMATCH = {
    "name": "weak-to-strong",
    "view": "strong",
    "mixer": {"use": "cutmix"},
    "normalizer": "valid",
    "weight": 0.5,
}
UPC = {"name": "upc", "view": "strong", "mix_at": "weak", "mixer": {"use": "upc"}, "normalizer": "valid", "weight": 0.5}
#: Patches a quarter of the side, as 32 pixels would hide half of these images at once, and in the mean grey of images
#: that are not normalised.
PATCH_MASK = {"use": "patch-mask", "patch": 16, "fill": 0.45}
LOCAL = {
    "name": "local-consistency", "view": "weak", "mixer": PATCH_MASK, "normalizer": "per_image_kept", "weight": 0.5,
}  # fmt: skip
MULTI_SCALE = {
    "name": "multi-scale", "view": "strong", "mixer": {"use": "cutmix"}, "normalizer": "per_image_kept",
    "scales": [1.0, 0.7, 1.5], "weight": 1.0,
}  # fmt: skip

CONSISTENCY = {"name": "consistency", "view": "strong", "normalizer": "valid", "weight": 1.0}

#: Controls, the methods alone, and each on top of FixMatch. SENSE alone mixes predictions before it labels them and
#: divides by the kept pixels; on top of FixMatch only the labels are its own. Mean Teacher's student sees the strong
#: view, because a model without dropout has nothing to be consistent about otherwise.
ARMS: dict[str, dict[str, Any]] = {
    **{name: {"extends": name} for name in ("supervised", "pseudo-label")},
    "mean-teacher": {"extends": "mean-teacher", "terms": [CONSISTENCY]},
    **{name: {"extends": name} for name in ("fixmatch", "classmix", "sense", "upc")},
    "maskmatch": {"extends": "maskmatch", "terms": [MULTI_SCALE, {**LOCAL, "weight": 1.0}]},
    "fixmatch + sense": {"extends": "fixmatch", "labeler": {"use": "sense"}, "terms": [FIXMATCH]},
    "fixmatch + upc": {"extends": "fixmatch", "terms": [FIXMATCH, UPC]},
    "fixmatch + local consistency": {"extends": "fixmatch", "terms": [FIXMATCH, LOCAL]},
}
#: What tells a method's idea from what comes with it: UPC with patches drawn by lot, FixMatch with SENSE's normaliser
#: or, as UPC and ClassMix, without a threshold, and SENSE without transport.
ABLATIONS: dict[str, dict[str, Any]] = {
    "upc, random patches": {
        "extends": "upc",
        "terms": [{**UPC, "weight": 1.0, "mixer": {"use": "upc", "score": "random"}}],
    },
    "fixmatch, every label kept": {
        "extends": "fixmatch",
        "labeler": {"use": "threshold", "threshold": 0.0},
        "terms": [FIXMATCH],
    },
    "fixmatch, divided by kept pixels": {"extends": "fixmatch", "terms": [{**FIXMATCH, "normalizer": "kept"}]},
    "sense, no transport": {"extends": "sense", "labeler": {"use": "threshold", "threshold": 0.95, "target": "soft"}},
}

#: What is held back in the arms above, see `scaled`.
UPDATED: dict[str, dict[str, Any]] = {
    f"{name}, averages updated": {**ARMS[name], "terms": [{**term, "batch_norm": "update"} for term in terms]}
    for name, terms in {
        "fixmatch": [FIXMATCH],
        "fixmatch + local consistency": [FIXMATCH, LOCAL],
        "maskmatch": [MULTI_SCALE, {**LOCAL, "weight": 1.0}],
    }.items()
}
#: Supervised training with the labels of every image: what perfect pseudo-labels could give in as many steps.
CEILING = "ceiling: every label"


class Float32(nn.Module):
    """The last layer of a model, in float32 under autocast: bfloat16 logits are too coarse to label by."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return self.layer(features.float())


def build_model(kind: str, classes: int) -> nn.Module:
    """Return a fresh model: ``unet`` (1.4 M parameters), ``segformer`` (B0's size, 3.7 M), ``mask2former`` (0.7 M)."""
    if kind == "mask2former":
        return mask2former(classes)
    if kind == "unet":
        unet = UNet(classes, (16, 32, 64, 128, 170))
        unet.head = Float32(unet.head)
        return unet
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    segformer = SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes))
    segformer.decode_head.classifier = Float32(segformer.decode_head.classifier)
    return segformer


def scaled(recipe: dict[str, Any], steps: int, burn_in: int) -> dict[str, Any]:
    """Return the recipe with the settings that a run of `steps` steps needs; see above."""
    settings: dict[str, Any] = {"supervised": {"burn_in": burn_in}}
    if recipe["extends"] != "pseudo-label":
        settings["teacher"] = {"ema": round(max(0.0, 1 - 20 / steps), 4)}
    table, _ = read_recipe(merge(recipe, settings), default_registry())
    return {**table, "terms": [{"batch_norm": "hold", **term} for term in table.get("terms", [])]}


def arm(name: str, labelled: Arrays, others: Arrays) -> tuple[dict[str, Any], Arrays]:
    """Return an arm's recipe and its labelled images: for the ceiling, all there are."""
    if name != CEILING:
        return (ARMS | ABLATIONS | UPDATED)[name], labelled
    return ARMS["supervised"], every(labelled, others)


def every(labelled: Arrays, others: Arrays) -> Arrays:
    """Return the labelled images of both."""
    return np.concatenate([labelled[0], others[0]]), np.concatenate([labelled[1], others[1]])


def train(
    recipe: dict[str, Any], labelled: Arrays, unlabelled: np.ndarray | Sequence[np.ndarray], test: Arrays, folder: Path,
    *, classes: int, model: str, steps: int, batch: int, lr: float, seed: int, start: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train one arm, or read what an earlier call measured; goes on from the last checkpoint.

    Of several sets of unlabelled images every batch holds equally many. `start` is the folder of a finished arm, whose
    student the training starts from in place of a burn-in.

    Returns:
        ``miou`` and ``iou``, ``teacher_miou``, ``kept`` (mean over the last quarter), ``kept_by_class``, ``flip_rate``
        and ``cpu_seconds``, processor time, which does not depend on what else the machine does.

    Raises:
        SystemExit: What an earlier call measured had other settings.
    """
    changed = {**scaled(recipe, steps, 0 if start else steps // 5), "seed": seed}
    settings = {"recipe": changed, "model": model, "steps": steps, "batch": batch, "lr": lr}
    done = folder / "result.json"
    if done.is_file():
        earlier = dict(json.loads(done.read_text()))
        if earlier.pop("settings") != json.loads(json.dumps(settings)):
            raise SystemExit(f"{done} was made with other settings: move it away, or take another --work")
        return earlier
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    # channels_last is the faster layout for convolutions on CPUs.
    student = build_model(model, classes).train().to(memory_format=torch.channels_last)
    if start is not None:
        student.load_state_dict(torch.load(start / "models.pt", weights_only=True)["student"])
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=1e-2)
    kind: OutputKind = "queries" if model == "mask2former" else "logits"
    step = SemiSupervisedStep(student, changed, kind=kind, num_classes=classes)
    state: dict[str, Any] = {"step": 0, "cpu": 0.0, "figures": []}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        for part, key in ((student, "student"), (optimizer, "optimizer"), (step, "self_training")):
            part.load_state_dict(state[key])
    fast_bfloat16 = has_fast_bfloat16()
    x_l, y_l = map(torch.from_numpy, labelled)
    streams = [torch.from_numpy(x) for x in ([unlabelled] if isinstance(unlabelled, np.ndarray) else unlabelled)]
    for number in (bar := tqdm(range(state["step"], steps), desc=folder.name, initial=state["step"], total=steps)):
        started = time.process_time()
        optimizer.param_groups[0]["lr"] = lr * one_cycle(number / steps)
        drawn_by = seed * 1_000_003 + number + (500_000 if start else 0)  # not what the burn-in drew
        generator = torch.Generator().manual_seed(drawn_by)
        torch.manual_seed(drawn_by)  # for dropout, so that a resumed run is the uninterrupted one
        rows = torch.randint(len(x_l), (batch,), generator=generator)
        images, labels = random_geometry(_floats(x_l[rows]), y_l[rows].long(), generator)
        others = None
        if recipe["extends"] != "supervised":
            share = batch // len(streams)
            drawn = [x_u[torch.randint(len(x_u), (share,), generator=generator)] for x_u in streams]
            others, _ = random_geometry(_floats(torch.cat(drawn)), None, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16):
            _, figures = step(images, labels, others, backward=Tensor.backward)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step.update()
        state["cpu"] += time.process_time() - started
        if "kept" in figures and number >= steps * 3 // 4:
            state["figures"].append({k: figures[k].tolist() for k in ("kept", "kept_by_class", "flip_rate")})
        if (number + 1) % 200 == 0 and number + 1 < steps:
            _save(checkpoint, state, number + 1, student, optimizer, step)
            bar.set_postfix(kept=f"{float(figures.get('kept', 0)):.2f}", refresh=False)
    result = {**_score(student, test, kind, classes), "cpu_seconds": state["cpu"], **_averages(state["figures"])}
    result["teacher_miou"] = _score(step.teacher.model, test, kind, classes)["miou"]
    # Kept for pictures of what an arm learned and labels.
    models = {"student": student.state_dict(), "teacher": step.teacher.model.state_dict()}
    torch.save(models, folder / "models.pt")
    done.write_text(json.dumps({**result, "settings": settings}))
    checkpoint.unlink(missing_ok=True)
    return result


def _floats(images: Tensor) -> Tensor:
    return (images.movedim(-1, 1).float() / 255).contiguous(memory_format=torch.channels_last)


def _save(path: Path, state: dict[str, Any], number: int, student: Any, optimizer: Any, step: Any) -> None:
    parts = {"student": student, "optimizer": optimizer, "self_training": step}
    saved = {**state, "step": number, **{name: part.state_dict() for name, part in parts.items()}}
    partial = path.with_suffix(".part")
    torch.save(saved, partial)
    partial.replace(path)


def _score(model: nn.Module, test: Arrays, kind: OutputKind, classes: int) -> dict[str, Any]:
    miou, iou = evaluate_miou(_Dense(model, kind), *test, classes)
    return {"miou": miou, "iou": [float(value) for value in iou]}


class _Dense(nn.Module):
    """A model whose outputs are logits (of queries: scores) of the images' size, whatever it returns."""

    def __init__(self, model: nn.Module, kind: OutputKind) -> None:
        super().__init__()
        self.model, self.read = model, OutputReader(kind)

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self.model(images), (images.shape[2], images.shape[3])).values


def _averages(figures: list[dict[str, Any]]) -> dict[str, Any]:
    if not figures:
        return {}
    means: dict[str, Any] = {}
    for key in figures[0]:
        values = np.array([f[key] for f in figures], np.float64)
        counts = (~np.isnan(values)).sum(0)
        mean = np.nansum(values, axis=0) / np.maximum(counts, 1)
        # JSON has no NaN: a class that was never predicted has no kept share.
        means[key] = np.where(counts > 0, mean, None).tolist()
    return means


def rows_of(results: dict[str, list[dict[str, Any]]], prefix: str = "mIoU") -> list[Row]:
    """Return one row per arm; the baseline is the supervised arm, ``cost`` its processor time as a multiple of that."""
    supervised = statistics.mean(r["miou"] for r in results["supervised"])
    seconds = statistics.mean(r["cpu_seconds"] for r in results["supervised"])
    rows = []
    for name, runs in results.items():
        values = [r["miou"] for r in runs]
        mean = statistics.mean(values)
        made = row(f"{prefix}, {name}", values, supervised, "share", larger_is_better=True)
        more = {
            "value": mean,
            "ratio": mean / supervised,
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "cost": statistics.mean(r["cpu_seconds"] for r in runs) / seconds,
            "kept": statistics.mean(r["kept"] for r in runs) if "kept" in runs[0] else None,
            "teacher": statistics.mean(r["teacher_miou"] for r in runs),
        }
        rows.append({**made, **more})
    return rows
