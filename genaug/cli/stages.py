"""What ``run``, ``adapt``, ``generate`` and ``filter`` share: one way to name a recipe, a device and a shard."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import click

from genaug.cli.complete import assignments as complete_assignments
from genaug.cli.complete import recipes

#: Prompts that a dry run prints.
SHOWN_PROMPTS = 20

_OPTIONS = {
    "device": click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:<number> or mps."
    ),
    "shard": click.option(
        "--shard",
        metavar="I/N",
        help="Make part I of N (1/4 to 4/4) of the samples; run all parts at once, anywhere the folder can be seen. "
        "Default: from RANK and WORLD_SIZE, or a Slurm array; 1/1 ignores those.",
    ),
    "repair": click.option("--repair", is_flag=True, help="Make damaged samples again."),
    "redo-filters": click.option(
        "--redo-filters", is_flag=True, help="Judge again where the options of a filter changed."
    ),
    "dry-run": click.option(
        "--dry-run", is_flag=True, help="Check recipe and data and print the plan; write nothing, load no model."
    ),
    "json": click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
}


def stage_command(only: str | None, options: Sequence[str], text: str) -> click.Command:
    """Return a command that runs one stage of a recipe, or all.

    Args:
        only: A stage of `genaug.engine.run`; None for all of them.
        options: Names in `_OPTIONS`; every command also takes ``--device``, ``--shard``, ``--dry-run`` and ``--json``.
        text: Its help.
    """

    @click.pass_context
    def command(context: click.Context, /, recipe: str, assignments: tuple[str, ...], **given: Any) -> None:
        from genaug.engine import STAGES, adapt_together, launched_processes, preview, run
        from genaug.recipe import load_recipe
        from genaug.store import Shard

        as_json, dry_run, text_of_shard = given.pop("as_json"), given.pop("dry_run"), given.pop("shard")
        shard = Shard.from_environment(os.environ) if text_of_shard is None else Shard.parse(text_of_shard)
        loaded = load_recipe(recipe, assignments)
        together = only == "adapt" and text_of_shard is None and launched_processes() > 1
        if dry_run:
            report = preview(loaded, device=given["device"], shard=shard)
            lines = _plan_lines(report)
        elif together:
            report = adapt_together(loaded, **given)
            lines = _report_lines(report)
        else:
            report = run(loaded, stages=STAGES if only is None else [only], shard=shard, **given)
            lines = _report_lines(report)
        if not together or os.environ["RANK"] == "0":  # one report, whoever reads it
            click.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))
        context.exit(1 if report.get("failed") else 0)

    command.__doc__ = text
    for name in reversed(["device", "shard", *options, "dry-run", "json"]):
        command = _OPTIONS[name](command)
    values = click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete_assignments)
    return click.command()(click.argument("recipe", shell_complete=recipes)(values(command)))


def _plan_lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"recipe    {report['recipe']} -> {report['output']}"
    yield f"samples   {report['samples']}: {report['conditions']} conditions x {report['samples_per_condition']}"
    sizes = ", ".join(f"{size} ({count})" for size, count in report["sizes"].items())
    yield f"batches   {report['batches']} of at most {report['batch_size']}; width x height: {sizes}"
    if report["shard"]:
        yield f"shard     {report['shard']}: {report['shard_samples']} samples"
    yield f"done      {report['done']}"
    yield f"disk      at most {report['bytes'] / 1e6:.0f} MB"
    yield f"to adapt  {', '.join(report['to_adapt']) or 'nothing'}"
    yield f"filters   {', '.join(report['filters']) or 'none'}"
    prompts = list(report["prompts"].items())
    for condition_id, text in prompts[:SHOWN_PROMPTS]:
        yield f"prompt    {condition_id}: {text}"
    if len(prompts) > SHOWN_PROMPTS:
        yield f"          and {len(prompts) - SHOWN_PROMPTS} more prompts; --json has all of them"


def _report_lines(report: dict[str, Any]) -> Iterator[str]:
    from genaug.store.views import NOTHING_LEFT

    stages = report["stages"]
    for place, part in stages.get("adapt", {}).items():
        yield f"adapt     {place}: {'reused' if part['reused'] else 'done'}"
    if "generate" in stages:
        part = stages["generate"]
        counts = ", ".join(f"{part[n]} {n}" for n in ("made", "reused", "refused", "failed"))
        yield f"generate  {part['planned']} samples: {counts}"
        for failure in part["failures"]:
            yield f"          failed: {', '.join(failure['samples'])}: {failure['error']}"
        if part["failed"]:
            yield "          run the same command again to try them once more"
        elif not part["complete"]:
            yield "          other shards are not done; the last one goes on"
    if "filter" in stages:
        part = stages["filter"]
        yield f"filter    {part['kept']} of {part['samples']} samples kept"
        if part["nothing_left"]:
            yield f"          {part['nothing_left']} left out that no filter drops: {NOTHING_LEFT}"
        for name, result in part["filters"].items():
            yield f"          {name}: {result['dropped']} dropped, {result['ignored_fraction']:.1%} of pixels ignored"
    if "report" in stages:
        yield f"report    {stages['report']['page']}"
    yield f"output    {report['output']}"
