"""``genaug quickstart``: one method at work, on data that a plugin draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from genaug.cli.complete import components
from genaug.cli.voice import say


@click.command()
@click.option(
    "--method",
    default="matchmask",
    show_default=True,
    shell_complete=components("quickstart"),
    help="Which method to show: matchmask, scribblegen, or what 'genaug plugins' lists.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("quickstart"), show_default=True, help="Folder to fill."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which scenes are labelled.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:<number> or mps.")
@click.option("--dry-run", is_flag=True, help="Check that the method can be shown here; make and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(method: str, output: Path, seed: int, device: str, dry_run: bool, as_json: bool) -> None:
    """Show one method at work, from few labels to a trained segmenter, offline, in minutes.

    Ends with a table of mean IoU on unseen data, the gallery of what was generated, and the lines to add to a trainer
    of your own. Run again, it goes on where it stopped.

    Example: genaug quickstart --method matchmask --output quickstart
    """
    from genaug.engine.device import resolve_device
    from genaug.registry import default_registry

    registry = default_registry()
    component = registry.component("quickstart", method, where="--method")
    show, device = registry.load(component), resolve_device(device)
    if dry_run:
        plan = {"method": method, "summary": component.summary, "output": str(output), "seed": seed, "device": device}
        _print_plan({**plan, "begun": output.is_dir() and any(output.iterdir()), "dry_run": True}, as_json)
        return
    result = show(output, seed=seed, device=device, say=say)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"\n{result['table']}\n")
    click.echo(f"IoU in percent, {result['test_scenes']} unseen scenes, seed {result['seed']}: {result['results']}")
    click.echo(result["remark"])
    click.echo(f"Gallery: {result['gallery']}\n\nIn your own trainer:\n")
    click.echo("\n".join(f"    {line}" for line in result["lines"]))


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan, indent=2))
        return
    click.echo(f"method    {plan['method']}: {plan['summary']}")
    click.echo(f"output    {plan['output']}{', goes on with what is there' if plan['begun'] else ''}")
    click.echo(f"device    {plan['device']}, seed {plan['seed']}")
    click.echo("nothing was written")
