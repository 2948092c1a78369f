"""``genaug new-plugin``: the package of a plugin that installs and passes its contracts, to be changed from there."""

from __future__ import annotations

import json
import keyword
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from genaug import __version__
from genaug.cli.voice import say
from genaug.errors import ConfigError, PluginError

# kind -> what the component that one starts from does, how a recipe uses it, its options as a row of a table
KINDS = {
    "filter": (
        "drop images that are one flat colour",
        "filters: [{{use: {name}, threshold: 2.0}}]",
        "| `threshold` | 2.0 | least standard deviation of the grey levels |",
    ),
    "generator": (
        "paint every class of a mask in one colour",
        "generator: {{use: {name}, samples_per_condition: 3}}",
        "| `samples_per_condition` | 3 | images per condition |\n| `noise` | 20.0 | in grey levels |",
    ),
    "labeler": (
        "keep pixels whose best class leads clearly",
        "labeler: {{use: {name}, margin: 0.5}}",
        "| `margin` | 0.5 | least lead of the best class, in probability |",
    ),
    "mixer": (
        "paste the lower part of another image",
        "terms:\n  - {{view: strong, mixer: {{use: {name}, share: 0.5}}}}",
        "| `share` | 0.5 | largest share of the height that is pasted |",
    ),
}
# Names of packages that mean something to Python's tools, or that other plugins are bound to have too.
_RESERVED = {
    "genaug", "test", "tests", "conftest", "setup", "build", "dist", "src", "docs", "plugin", "plugins", "config",
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 60


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--kind", type=click.Choice(list(KINDS)), default="filter", show_default=True, help="What it provides.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder to make; NAME in this folder by default."
)
@click.option("--dry-run", is_flag=True, help="List the files and write none.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, kind: str, output: Path | None, dry_run: bool, as_json: bool) -> None:
    """Make the package of a plugin of your own, in a folder of its own.

    NAME is what it is published as: lower-case words joined by hyphens. Recipes call the component the same, without
    a leading 'genaug-'. The package installs and passes its tests as it is; change it from there.

    \b
    Example:
      genaug new-plugin genaug-sharpness --kind filter
      pip install -e "genaug-sharpness[test]" && pytest genaug-sharpness
    """
    component = name.removeprefix("genaug-")
    folder = output or Path(name)
    _refuse_name(name, component)
    _refuse_taken(name, kind, component)
    _refuse_folder(folder)
    files = dict(_files(name, kind, component))
    if not dry_run:
        _write(folder, files)
    if as_json:
        report = {"name": name, "kind": kind, "component": component, "folder": str(folder), "dry_run": dry_run}
        click.echo(json.dumps({**report, "files": sorted(files)}, indent=2))
        return
    click.echo("\n".join(str(folder / path) for path in sorted(files)))
    if dry_run:
        say("Nothing was written.")
    else:
        place = f"./{folder}" if str(folder).startswith("-") else str(folder)
        say(f"Next: pip install -e {shlex.quote(f'{place}[test]')} && pytest {shlex.quote(place)}")


def _refuse_name(name: str, component: str) -> None:
    import yaml

    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        allowed = f"lower-case words of letters and digits joined by hyphens, at most {_LONGEST} characters"
        raise ConfigError(f"the name {name!r}", where="NAME", allowed=f"{allowed}, a letter first")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or package in _RESERVED:
        raise ConfigError(f"{package!r} is a name of Python's or genaug's own", where="NAME", hint="Choose another")
    if (read := yaml.safe_load(f"{{use: {component}}}")["use"]) != component:
        found = f"recipes would have to quote {component!r}, which YAML reads as {read!r}"
        raise ConfigError(found, where="NAME", hint="Choose another")


def _refuse_taken(name: str, kind: str, component: str) -> None:
    """Refuse what could not be installed beside what is installed here."""
    from genaug.cli.plugins import installed
    from genaug.registry import is_installed

    package = name.replace("-", "_")
    if is_installed(package):
        hint = "Choose another name, or uninstall that package first"
        raise ConfigError(f"a package {package!r} is installed here already", where="NAME", hint=hint)
    for record in installed():
        if any((c.kind, c.name) == (kind, component) for c in record.components):
            raise PluginError(
                f"{record.distribution} provides a {kind} called {component!r}", where="NAME", hint="Choose another"
            )


def _refuse_folder(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise ConfigError(
            f"{folder} exists", where="--output", hint="Name a folder that is empty or does not exist yet"
        )
    if not folder.absolute().parent.is_dir():
        raise ConfigError(f"{folder.parent} is no folder", where="--output", hint="Make it first")


def _files(name: str, kind: str, component: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of every file of the package."""
    import jinja2

    package = name.replace("-", "_")
    summary, usage, options = KINDS[kind]
    values = {
        "name": name,
        "package": package,
        "component": component,
        "kind": kind,
        "class_name": _class_name(component, kind),
        "summary": summary,
        "usage": usage.format(name=component),
        "option_row": options,
        "version": __version__,
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("genaug.cli", "new_plugin_templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    places = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{package}/__init__.py": "init.py",
        f"{package}/plugin.py": "plugin.py",
        f"{package}/config.py": f"{kind}/config.py",
        f"{package}/{kind}.py": f"{kind}/component.py",
        "tests/test_plugin.py": "test_plugin.py",
        f"tests/test_{kind}.py": f"{kind}/test.py",
    }
    for path, template in places.items():
        yield path, templates.get_template(f"{template}.jinja").render(values)


def _class_name(component: str, kind: str) -> str:
    words = [*component.removesuffix(f"-{kind}").split("-"), kind]
    made = "".join(word.capitalize() for word in words)
    # Classes do not begin with a digit, pytest collects those that begin with Test, and one is the interface itself.
    return f"My{made}" if re.match(r"\d|Test|PseudoLabeler$", made) else made


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write the whole folder or nothing; one that is there, and empty, may be the current one and stays itself."""
    there, folder = folder.is_dir(), folder.absolute()
    unfinished = (folder if there else folder.parent) / f".{folder.name}.{os.getpid()}.part"
    try:
        for path, text in files.items():
            target = unfinished / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
        for made in list(unfinished.iterdir()) if there else [unfinished]:
            made.rename(folder / made.name if there else folder)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(folder)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
