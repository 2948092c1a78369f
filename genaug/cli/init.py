"""``genaug init``: look at a folder of images and masks, write a recipe for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from genaug.cli.voice import say
from genaug.errors import ConfigError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("recipe.yaml"), show_default=True, help="File to write."
)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option("--dry-run", is_flag=True, help="Print the recipe; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the recipe, notes and problems as JSON.")
@click.pass_context
def command(ctx: click.Context, folder: Path, output: Path, force: bool, dry_run: bool, as_json: bool) -> None:
    """Look at the images and masks in DIR and write a commented recipe for them.

    Class names are taken from classes.json, labels.txt or the like; otherwise rename the placeholders. Exit code 1
    when the recipe was written but the data have problems.

    Example: genaug init my_data --output my_data.yaml
    """
    from genaug.cli.proposal import own_list, propose

    if output.suffix.lower() not in {".yaml", ".yml"}:
        raise ConfigError(f"{output}", where="--output", allowed="a .yaml file")
    _refuse_existing(output, force)
    _refuse_no_folder(output)
    proposal = propose(folder, output)
    files = {output: proposal.text}
    if proposal.listing is not None:
        _refuse_existing(own_list(output), force)
        files = {own_list(output): "\n".join(proposal.listing) + "\n", **files}
    if not dry_run:
        for path, text in files.items():
            _write(path, text)
    # The data of a recipe whose list of samples is not written cannot be read as it says.
    problems = [] if dry_run and proposal.listing is not None else _problems(proposal.text, output)
    if as_json:
        report = {"recipe": str(output), "files": list(map(str, files)), "text": proposal.text, "dry_run": dry_run}
        click.echo(json.dumps({**report, "notes": proposal.notes, "problems": problems}, indent=2, ensure_ascii=False))
    else:
        click.echo(proposal.text.rstrip() if dry_run else "\n".join(map(str, files)))
        for note in proposal.notes:
            say(f"genaug: note: {note}")
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        what = "the data have problems" if dry_run else "the recipe is written, but the data have problems"
        click.echo(f"genaug: {what}:{lines}", err=True)
    if dry_run:
        say("Nothing was written.")
    elif problems:
        say(f"'genaug check {output} --all' names every file.")
    else:
        say(f"Read it, rename classes where it says so, then: genaug check {output}")
    ctx.exit(1 if problems else 0)


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ConfigError(f"{path} exists", where="--output", hint="Name another file, or add --force")


def _refuse_no_folder(path: Path) -> None:
    """Refuse an output below something that is no folder before the data are read; missing folders are made later."""
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{nearest} is no folder", where="--output", hint="Name a file in another folder")
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"{nearest} cannot be written", where="--output", hint="Name a file in another folder")


def _problems(text: str, output: Path) -> list[str]:
    """Read the data as the recipe says; its generator need not be installed for that."""
    from genaug.config import parse
    from genaug.recipe import load_recipe

    recipe = parse(text, ".yaml", where=str(output))
    return load_recipe({key: recipe[key] for key in ("labels", "data")}, root=output.parent).source().check()


def _write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, "utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)
