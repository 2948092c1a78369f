"""``genaug push``: publish an adapter or a store on the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from genaug.cli.complete import licenses


@click.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.argument("repo", metavar="ORG/NAME")
@click.option(
    "--license",
    metavar="NAME",
    shell_complete=licenses,
    help="License of what you publish, e.g. cc-by-4.0. Has no default.",
)
@click.option("--base", metavar="ORG/NAME", help="Where others find the base model, if you trained on a folder.")
@click.option("--base-revision", metavar="REV", help="Branch, tag or commit of the base model.")
@click.option("--version", metavar="TAG", help="Tag what is pushed; others name it with ORG/NAME@TAG.")
@click.option("--tag", "tags", multiple=True, metavar="WORD", help="Tag of the card; may be given several times.")
@click.option(
    "--figures", type=click.Path(path_type=Path), help="YAML or JSON file for the card: [{name, value, command}]."
)
@click.option(
    "--pictures/--no-pictures",
    default=True,
    show_default=True,
    help="Publish the newest preview and the loss curve. Previews of adapters show labelled images.",
)
@click.option("--private", is_flag=True, help="Make the repository private; refuse one that is public.")
@click.option("--create-pr", is_flag=True, help="Propose the change to a repository of somebody else.")
@click.option(
    "--token", metavar="TOKEN", help="Better: HF_TOKEN or 'hf auth login', since other users may see a command line."
)
@click.option("--dry-run", is_flag=True, help="Check everything, show files and card; ask nobody, send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(as_json: bool, folder: Path, repo: str, **options: Any) -> None:
    """Publish an adapter as a model, or a store as a dataset, on the Hugging Face Hub.

    FOLDER is what 'genaug adapt' wrote, or the store of a finished 'genaug run'. It is checked whole before anything is
    sent; paths of this machine are taken out, and nothing in it changes. Everything goes in one commit; what is there
    already is not sent again, and a push repeated does nothing. HF_ENDPOINT and HF_TOKEN are honoured.

    \b
    Example:
      genaug push synthetic/adapter me/voc-matchmask --license creativeml-openrail-m --version v1
    """
    from genaug.hub.push import push

    options["private"] = options["private"] or None
    report = push(folder, repo, **options)
    click.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(report)))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    total = sum(file["bytes"] for file in report["files"])
    yield f"{report['type']:<9} {report['repo']}, {report['license']}"
    if "base" in report:
        yield f"base      {report['base']}, revision {report['base_revision'] or 'not pinned'}"
    yield f"files     {len(report['files'])}, {total / 1e6:.1f} MB"
    for note in report["notes"]:
        yield f"note      {note}"
    if report.get("dry_run"):
        yield from (f"          {file['bytes']:>12,}  {file['path']}" for file in report["files"])
        yield "nothing was sent; README.md would be:\n"
        yield report["card"]
    elif report["unchanged"]:
        yield f"unchanged {report['pull_request'] or report['url']} at {report['commit']}"
    else:
        yield f"sent      {report['sent']} files, {report['removed']} removed"
        yield f"commit    {report['pull_request'] or report['url']} at {report['commit']}"
