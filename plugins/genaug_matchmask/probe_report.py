"""The Gradient Probe as a tool: scores as JSON, a picture, and the regex to put into a recipe."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from genaug.errors import ConfigError, StoreError
from genaug.labels import LabelSpace
from genaug.rng import Rng
from genaug.store.files import make_folder, system_errors, write_whole
from genaug.types import Sample
from genaug_diffusion.adapter_folder import TAG
from genaug_diffusion.curves import save_figure
from genaug_matchmask.probe import Mode, ProbeResult, layer_type, layers_regex, probe
from genaug_matchmask.task import LayoutTask

if TYPE_CHECKING:
    from genaug_matchmask.generator import MatchMaskGenerator


def write_probe(
    generator: MatchMaskGenerator,
    samples: Sequence[Sample],
    folder: Path,
    *,
    labels: LabelSpace,
    rng: Rng,
    mode: str,
    epochs: int,
    share: float,
    optimizer: str,
    learning_rate: float,
) -> Mapping[str, Any]:
    """Probe the generator's base model on `samples`; write ``probe.json``, ``probe.csv``, ``probe.png``.

    Returns:
        Mode, optimiser, the mean score of every layer type, the selected weights and the regex for
        ``generator.target_modules``; per-weight scores of every epoch are in ``probe.json``.

    Raises:
        ConfigError: A setting is wrong.
        StoreError: The folder cannot be written, which is found before anything is computed; or a file could not be
            written in the end, and the message holds the regex.
    """
    if mode not in ("gradient", "finetune") or optimizer not in ("adamw", "sgd"):
        raise ConfigError(
            f"mode {mode!r}, optimizer {optimizer!r}", where="probe", allowed="gradient|finetune, adamw|sgd"
        )
    if not 0 < share <= 1:
        raise ConfigError(f"share {share}", where="probe", allowed="more than 0, at most 1")
    make_folder(folder)
    with system_errors("write", folder), tempfile.TemporaryFile(dir=folder):
        pass  # a probe takes hours on a large base: better to know now
    generator.load_base(labels)
    pipe = generator.pipe
    result = probe(
        _task(generator, samples),
        pipe.unet,
        mode=cast(Mode, mode),
        epochs=epochs,
        batch_size=generator.options.training.batch_size,
        rng=rng,
        optimizer=cast(Literal["adamw", "sgd"], optimizer),
        learning_rate=learning_rate,
    )
    selected = result.select(share)
    linears = [n for n, m in pipe.unet.named_modules() if isinstance(m, torch.nn.Linear)]
    regex = layers_regex(selected, linears)
    report = {
        "mode": result.mode,
        "optimizer": result.optimizer,
        "epochs": epochs,
        "samples": len(samples),
        "share": share,
        "types": {kind: {"weights": n, "mean_score": mean} for kind, (n, mean) in result.by_type().items()},
        "selected": selected,
        "target_modules": regex,
    }
    try:
        scores = {**report, "scores": result.scores}
        write_whole(folder / "probe.json", json.dumps(scores, indent=1).encode(), tag=TAG)
        _write_table(result, set(selected), folder / "probe.csv")
        plot_probe(result, folder / "probe.png", share=share)
    except StoreError as error:
        raise _unwritten(error, regex) from error
    return report


def _unwritten(error: StoreError, regex: str | None) -> StoreError:
    """Return an error that holds what the probe found, which no file does."""
    found = regex or "none of the selected weights is a Linear"
    hint = f"Probe again into another folder, or use what it found. generator.target_modules: {found}"
    lost = StoreError(f"the probe is done, but {error.found}", where=error.where, hint=hint)
    lost.errno = error.errno
    return lost


def _task(generator: MatchMaskGenerator, samples: Sequence[Sample]) -> LayoutTask:
    return LayoutTask(
        generator.pipe,
        generator.conditioner,
        samples,
        resolution=generator.resolution,
        flips=False,
        scheduler=generator.training_scheduler,
    )


def _write_table(result: ProbeResult, selected: set[str], path: Path) -> None:
    """Write one line per layer, the highest mean score first."""
    epochs = len(next(iter(result.scores.values())))
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["weight", "type", "selected", *(f"epoch {i + 1}" for i in range(epochs))])
    for name in sorted(result.scores, key=lambda n: (-sum(result.scores[n]), n)):
        writer.writerow([name, layer_type(name), int(name in selected), *map(repr, result.scores[name])])
    write_whole(path, file.getvalue().encode(), tag=TAG)


def plot_probe(result: ProbeResult, path: Path, *, share: float) -> None:
    """Write the scores by depth (weights in the order of the UNet) and the mean score of every layer type."""
    from matplotlib.figure import Figure

    types = result.by_type()
    figure = Figure(figsize=(9, 4.5 + 0.22 * len(types)), layout="constrained")
    by_depth, by_type = figure.subplots(2, 1, height_ratios=[4, 0.3 * len(types) + 1])
    names, selected = list(result.scores), set(result.select(share))
    for epoch in range(len(next(iter(result.scores.values())))):
        shade = 0.75 - 0.6 * epoch / max(1, len(next(iter(result.scores.values()))) - 1)
        by_depth.plot(
            [result.scores[n][epoch] for n in names], color=str(shade), linewidth=0.8, label=f"epoch {epoch + 1}"
        )
    marks = [i for i, n in enumerate(names) if n in selected]
    by_depth.plot(
        marks, [result.scores[names[i]][-1] for i in marks], "o", color="tab:red", markersize=3, label="selected"
    )
    middle = [i for i, n in enumerate(names) if n.startswith("mid_block")]
    if middle:
        by_depth.axvspan(middle[0], middle[-1], color="tab:blue", alpha=0.1, label="middle block")
    by_depth.set(
        xlabel="weight, from input to output", ylabel="score", title=f"{result.mode}, optimizer {result.optimizer}"
    )
    by_depth.set_yscale("log")
    by_depth.legend(fontsize=8, ncols=2)
    by_type.barh([f"{kind} ({n})" for kind, (n, _) in types.items()][::-1], [m for _, m in types.values()][::-1])
    by_type.set(xlabel="mean score")
    by_type.tick_params(axis="y", labelsize=8)
    save_figure(figure, path)
