"""``genaug quickstart``: one method at work, on data that a plugin draws."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.option(
    "--method",
    default="matchmask",
    show_default=True,
    help="Which method to show: matchmask, scribblegen, or what 'genaug plugins' lists.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("quickstart"), show_default=True, help="Folder to fill."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which scenes are labelled.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:<number> or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(method: str, output: Path, seed: int, device: str, as_json: bool) -> None:
    """Show one method at work, from few labels to a trained segmenter, offline, in minutes.

    Ends with a table of mean IoU on unseen data, the gallery of what was generated, and the lines to add to a trainer
    of your own. Run again, it goes on where it stopped.

    Example: genaug quickstart --method matchmask --output quickstart
    """
    from genaug.engine.device import resolve_device
    from genaug.registry import default_registry

    registry = default_registry()
    show = registry.load(registry.component("quickstart", method, where="--method"))
    result = show(output, seed=seed, device=resolve_device(device), say=lambda text: click.echo(text, err=True))
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"\n{result['table']}\n")
    click.echo(f"IoU in percent, {result['test_scenes']} unseen scenes, seed {result['seed']}: {result['results']}")
    click.echo(result["remark"])
    click.echo(f"Gallery: {result['gallery']}\n\nIn your own trainer:\n")
    click.echo("\n".join(f"    {line}" for line in result["lines"]))
