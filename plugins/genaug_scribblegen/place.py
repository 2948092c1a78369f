"""Where a ControlNet to start from is: beside a shipped base, in a local folder, or on the Hub. Light: no torch."""

from __future__ import annotations

from pathlib import Path

from genaug.errors import ConfigError, GenaugError
from genaug.hub.reference import local_path
from genaug.models import ModelCheck
from genaug.registry import Registry
from genaug_scribblegen.adapter_files import CONTROLNET

WHERE = "generator.controlnet"
ALLOWED = "a ControlNet's folder, a folder with one in 'controlnet/' (such as an adapter's), or a Hub id"


def find_controlnet(name: str, *, root: Path, registry: Registry) -> tuple[str, bool]:
    """Return ``(folder or Hub id, is it local)`` for option ``controlnet``; ``hf-hub:org/name@revision`` is fetched.

    Raises:
        HubError: It cannot be fetched, or is not safe to use.
        ConfigError: Neither a shipped base with a ControlNet nor a folder of one nor of a Hub id's form.
    """
    shipped = name in registry.names("base")
    folder = Path(registry.load(registry.component("base", name))()) if shipped else local_path(name, root)
    for place in (folder / CONTROLNET, folder):
        if (place / "config.json").is_file() and any(place.glob("*.safetensors")):
            return str(place), True
    if shipped or folder.exists():
        raise ConfigError(f"{folder} has no ControlNet with .safetensors weights", where=WHERE, allowed=ALLOWED)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ConfigError(f"{name!r} is neither a folder nor a Hub id", where=WHERE, allowed=ALLOWED)
    return name, False


def check_controlnet(look: ModelCheck, name: str) -> None:
    """Report what is wrong with option ``controlnet``, as far as can be told without loading it or asking the Hub."""
    if look.elsewhere("controlnet", name):
        return
    try:
        _, local = find_controlnet(name, root=look.root, registry=look.registry)
    except GenaugError as error:
        look.problems.append(str(error))
        return
    if not local:
        look.note("controlnet", f"{name!r} is no folder, so it is a Hub id; whether the Hub has it is not checked")
