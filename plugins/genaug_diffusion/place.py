"""Where a base model is: a name that a plugin ships, a local folder, or a Hub id, in this order. Light: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genaug.errors import ConfigError
from genaug.hub.reference import HubRef, is_reference
from genaug.models import ModelCheck
from genaug.registry import Registry

#: Sub-folders of a Stable Diffusion model -> whether they hold weights.
PARTS = {"unet": True, "vae": True, "text_encoder": True, "tokenizer": False, "scheduler": False}
ALLOWED = "a Stable Diffusion 1.x or 2.x folder in diffusers format, or a Hub id"


def resolve_base(base: str, *, root: Path, registry: Registry) -> tuple[str, bool]:
    """Return ``(path or Hub id, is it local)`` for the ``base`` of a recipe.

    Raises:
        ConfigError: Neither a shipped base nor a model folder nor of a Hub id's form.
    """
    if base in registry.names("base"):
        return str(registry.load(registry.component("base", base))()), True
    if is_reference(base):
        return HubRef.parse(base).repo, False
    folder = root / Path(base).expanduser()
    if folder.exists():
        if not (folder / "model_index.json").is_file():
            raise ConfigError(f"{folder} has no model_index.json", where="generator.base", allowed=ALLOWED)
        return str(folder), True
    if base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise ConfigError(
            f"{base!r} is neither a folder nor a Hub id",
            where="generator.base",
            allowed=f"org/name on the Hub, a local folder, or one of: {', '.join(registry.names('base'))}",
        )
    return base, False


def base_revision(base: str, revision: str | None) -> str | None:
    """Return the revision of a base: option ``revision``, or what follows the ``@`` of ``hf-hub:org/name@revision``.

    Raises:
        ConfigError: Both are given, and differ.
    """
    return HubRef.parse(base, revision=revision).revision if is_reference(base) else revision


def base_resolution(look: ModelCheck, base: str, revision: str | None) -> int | None:
    """Return the side in pixels of the images that a base was made for, from its small files.

    None if they are not here: on the Hub, and not fetched by the library that loads the model. Nobody is asked.

    Raises:
        ConfigError: Neither a shipped base nor a model folder nor of a Hub id's form.
    """
    place, local = resolve_base(base, root=look.root, registry=look.registry)
    found: list[Any] = []
    for name, key in (("unet/config.json", "sample_size"), ("vae/config.json", "block_out_channels")):
        file = Path(place) / name if local else _cached(place, name, base_revision(base, revision))
        table = None if file is None else look.table("base", file)
        found.append(None if table is None else table.get(key))
    cells, channels = found
    return cells * 2 ** (len(channels) - 1) if isinstance(cells, int) and isinstance(channels, list) else None


def _cached(repo: str, file: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def check_base(look: ModelCheck, base: str) -> None:
    """Report what is wrong with option ``base``, as far as can be told without loading it or asking the Hub."""
    if base in look.registry.names("base"):
        return
    try:
        place, local = resolve_base(base, root=look.root, registry=look.registry)
    except ConfigError as error:
        look.problems.append(str(error))
        return
    if not local:
        look.note("base", f"{base!r} is no folder, so it is a Hub id; whether the Hub has it is not checked")
        return
    folder = Path(place)
    if look.table("base", folder / "model_index.json") is None:
        return
    lacking = [f"no folder {name}" for name in PARTS if not (folder / name).is_dir()]
    lacking += [
        f"no .safetensors file in {name}"
        for name, weights in PARTS.items()
        if weights and (folder / name).is_dir() and not any((folder / name).glob("*.safetensors"))
    ]
    if lacking:
        look.problem("base", f"{folder} has {', '.join(lacking)}", allowed=ALLOWED)
