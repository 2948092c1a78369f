"""``genaug probe``: which layers of the base model to adapt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from genaug.cli.complete import assignments as complete_assignments
from genaug.cli.complete import recipes
from genaug.errors import ConfigError


@click.command()
@click.argument("recipe", shell_complete=recipes)
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete_assignments)
@click.option(
    "--mode",
    type=click.Choice(["gradient", "finetune"]),
    default="gradient",
    show_default=True,
    help="gradient sums gradients and never steps; finetune fine-tunes the whole model and needs twice the memory.",
)
@click.option(
    "--epochs", type=click.IntRange(1), default=3, show_default=True, help="Passes over the labelled samples."
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Share of the weights to select in every epoch.",
)
@click.option(
    "--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True, help="For finetune."
)
@click.option("--learning-rate", type=float, default=1e-5, show_default=True, help="For finetune.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:<number> or mps.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the table and the plot [<store>/probe].")
@click.option("--dry-run", is_flag=True, help="Check recipe and data and say what would be done; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    recipe: str,
    assignments: tuple[str, ...],
    device: str,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Find the layers of the base model that layout-to-image training changes most.

    RECIPE is a file or the name of a ready recipe; KEY=VALUE overrides one of its keys. Prints a table by layer type
    and the regular expression for generator.target_modules.

    Example: genaug probe recipe.yaml --mode gradient --epochs 3 --share 0.1
    """
    from genaug.engine.device import resolve_device
    from genaug.fit import require_fit
    from genaug.interfaces import Probeable
    from genaug.recipe import load_recipe
    from genaug.sources import checked
    from genaug.store.files import system_errors

    loaded = load_recipe(recipe, assignments)
    context = loaded.context(device=resolve_device(device))
    source = checked(loaded.source(context))
    require_fit(loaded, data=source, conditions=None)
    generator = loaded.generator(context)
    if not isinstance(generator, Probeable):
        raise ConfigError(
            f"{type(generator).__name__} has no layers to probe", where="generator.use", allowed="matchmask"
        )
    folder = output or loaded.output / "probe"
    if dry_run:
        plan = {"recipe": loaded.config.name, "samples": len(source), "device": context.device, **settings}
        _print_plan({**plan, "output": str(folder), "dry_run": True}, as_json)
        return
    with system_errors("write the probe's report", folder):
        report = generator.probe(list(source), folder, labels=loaded.labels, rng=loaded.rng.child("probe"), **settings)
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report, folder)))


def _print_plan(plan: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan, indent=2, ensure_ascii=False))
        return
    click.echo(f"recipe    {plan['recipe']}, {plan['samples']} labelled samples, {plan['epochs']} epochs")
    click.echo(f"probe     mode {plan['mode']}, share {plan['share']}, on {plan['device']}")
    click.echo(f"output    {plan['output']}: nothing was written")


def _lines(report: Mapping[str, Any], folder: Path) -> Iterator[str]:
    yield f"{'layer type':32} {'weights':>7} {'mean score':>12}"
    for kind, row in report["types"].items():
        yield f"{kind:32} {row['weights']:7d} {row['mean_score']:12.3e}"
    yield f"selected {len(report['selected'])} weights (mode {report['mode']}, optimizer {report['optimizer']})"
    yield f"generator.target_modules: {report['target_modules'] or 'none of the selected weights is a Linear'}"
    yield f"table and plot: {folder}"
