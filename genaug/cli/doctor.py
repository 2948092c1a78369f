"""``genaug doctor``: what this machine has, what it lacks, and the command that mends it. Imports no library."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
from packaging.requirements import Requirement

from genaug import __version__
from genaug.cli.plugins import installed
from genaug.errors import GenaugError

DISTRIBUTION = "genaug"
_INSTALL_DETECTRON2 = "python -m pip install 'git+https://github.com/facebookresearch/detectron2.git'"
_ENVIRONMENT = re.compile(r"(HF|HUGGING_?FACE|TRANSFORMERS|DIFFUSERS|GENAUG)_\w+")
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w.-]+)['"]""")


def examine(*, devices: bool = False) -> dict[str, Any]:
    """Look at this machine and return what was found as JSON-like data; ``problems`` lists what is broken.

    Args:
        devices: Import torch and ask it for its devices, which takes seconds.
    """
    problems: list[str] = []
    required, extras = _libraries(problems)
    try:
        plugins = installed()
    except GenaugError as error:  # a broken one, with GENAUG_STRICT_PLUGINS=1
        plugins = []
        problems.append(str(error))
    problems += [f"plugin {p.name} ({p.distribution} {p.version}) is broken: {p.error}" for p in plugins if p.error]
    return {
        "genaug": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "required": required,
        "extras": extras,
        "detectron2": _version("detectron2") or f"not installed: {_INSTALL_DETECTRON2}",
        "plugins": [p.name for p in plugins if p.error is None and not p.disabled],
        "torch": _devices(problems) if devices else None,
        "cpus": os.cpu_count(),
        "disk": _disk(),
        "environment": _environment(),
        "problems": problems,
    }


def _libraries(problems: list[str]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Return required library -> version, and extra -> what it lacks and the command that brings it."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        problems.append(
            "genaug runs from a folder without being installed, so its plugins are not found: pip install ."
        )
        return {}, {}
    required: dict[str, str] = {}
    extras: dict[str, dict[str, Any]] = {}
    for requirement in map(Requirement, lines):
        named = _EXTRA.search(str(requirement.marker)) if requirement.marker else None
        fault = _fault(requirement)
        if named is None:
            required[requirement.name] = _version(requirement.name) or "missing"
            if fault:
                problems.append(f"{fault}: pip install '{requirement.name}{requirement.specifier}'")
        else:
            extra = extras.setdefault(named.group(1), {"lacks": [], "install": None})
            if fault:
                extra["lacks"].append(fault)
                extra["install"] = f"pip install '{DISTRIBUTION}[{named.group(1)}]'"
    return required, extras


def _fault(requirement: Requirement) -> str | None:
    found = _version(requirement.name)
    if found is None:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} is {found}, but {requirement.specifier} is needed"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices(problems: list[str]) -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a broken driver raises OSError, a broken wheel ImportError
        problems.append(f"torch cannot be imported: {type(error).__name__}: {error}")
        return {}
    cuda = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "devices": [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"],
        "threads": torch.get_num_threads(),
    }


def _disk() -> dict[str, str]:
    """Return the free space of this folder and of the model cache (its nearest existing parent)."""
    cache = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface")).expanduser()
    free = {}
    for label, folder in (("here", Path.cwd()), ("model cache", cache)):
        existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        free[f"{label} ({folder})"] = f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free"
    return free


def _environment() -> dict[str, str]:
    """Return the settings in force; a token's value is never shown, nor a password inside an address."""
    shown = {}
    for name, value in sorted(os.environ.items()):
        if not _ENVIRONMENT.fullmatch(name):
            continue
        if _SECRET.search(name):
            shown[name] = "set (not shown)"
        elif "@" in value:
            parts = urlsplit(value)
            shown[name] = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        else:
            shown[name] = value
    return shown


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"genaug {report['genaug']}, Python {report['python']}, {report['platform']}, {report['cpus']} CPUs"
    yield "required: " + (", ".join(f"{n} {v}" for n, v in report["required"].items()) or "unknown")
    for name, extra in report["extras"].items():
        yield f"extra {name}: " + (
            f"{'; '.join(extra['lacks'])}: {extra['install']}" if extra["lacks"] else "installed"
        )
    yield f"detectron2: {report['detectron2']}"
    yield f"plugins: {', '.join(report['plugins']) or 'none'}"
    if report["torch"]:
        yield "torch: {version}, CUDA {cuda}, devices {devices}, {threads} threads".format(**report["torch"])
    yield from (f"disk, {place}: {free}" for place, free in report["disk"].items())
    yield from (f"{name}={value}" for name, value in report["environment"].items())
    yield f"problems ({len(report['problems'])}):" if report["problems"] else "Nothing required is broken."
    yield from (f"  - {problem}" for problem in report["problems"])


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--devices", is_flag=True, help="Import torch and list its devices; takes seconds.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, devices: bool) -> None:
    """Report versions, extras, plugins, disk space and settings of this machine.

    Exit code 1 when something that genaug requires is broken. Values of tokens are never shown.

    Example: genaug doctor --devices
    """
    report = examine(devices=devices)
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))
    if report["problems"]:
        ctx.exit(1)
