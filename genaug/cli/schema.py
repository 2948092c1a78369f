"""``genaug schema``: the JSON schema of recipes, for editors."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: the schema is JSON anyway.")
def command() -> None:
    """Print the JSON schema of recipes, with the options of every component that is installed.

    Editors with a YAML language server then complete keys and mark mistakes in files whose first line is
    "# yaml-language-server: $schema=recipe.schema.json".

    Example: genaug schema > recipe.schema.json
    """
    from genaug.schema import recipe_schema

    click.echo(json.dumps(recipe_schema(), indent=2))
