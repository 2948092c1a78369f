"""Adapter folders of any method: what they must hold to be published, or used after they were fetched."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genaug.config import Options
from genaug.errors import AdapterError, ConfigError
from genaug.hub.card import adapter_card
from genaug.hub.parcel import Parcel, Wishes, inside
from genaug.hub.places import clean, is_machine_path, machine_paths, without_paths
from genaug.hub.reference import HubRef, is_reference
from genaug.hub.weights import check_weights
from genaug.labels import LabelSpace
from genaug.registry import Registry, default_registry
from genaug.store.learned import read_table, sha256_of

CONFIG, CARD, PEFT_CONFIG = "genaug_config.json", "README.md", "adapter_config.json"
PICTURES, _PREVIEW, _LOSSES = "pictures", "preview.png", "losses.png"
_AGAIN = "Fetch it again, or ask its author"
#: A Hub id, or the name of a base model that a plugin ships.
_PUBLIC = re.compile(r"(?:hf-hub:)?\w[\w.-]*(?:/\w[\w.-]*)?(?:@\w[\w./-]*)?", re.ASCII)


def check_adapter(folder: Path, *, where: str | None = None) -> tuple[dict[str, Any], dict[str, Path]]:
    """Look at an adapter folder of any method, without its method.

    Args:
        folder: The folder.
        where: How messages name it.

    Returns:
        ``genaug_config.json``, and the files whose SHA-256 it records, by name.

    Raises:
        AdapterError: Something is missing, damaged, of the wrong form, or NaN; one line.
    """
    where = where or str(folder)
    if not (folder / CONFIG).is_file():
        raise AdapterError(f"no {CONFIG}", where=where, allowed="a folder written by 'genaug adapt'")
    config = read_table(folder / CONFIG, hint=_AGAIN)
    for key, kind in (("format", str), ("method", str), ("base", str), ("labels", dict)):
        if not isinstance(config.get(key), kind):
            found = f"{CONFIG} has {config.get(key)!r} as {key!r}"[:200]
            raise AdapterError(found, where=where, allowed="text" if kind is str else "a class table")
    try:
        foreign_labels(config["labels"])
    except ConfigError as error:
        raise AdapterError(f"{CONFIG}: {error}", where=where) from None
    recorded = _recorded(folder, config, where)
    for name, path in recorded.items():
        if path.suffix == ".safetensors":
            check_weights(path, where=f"{where}, {name}")
    if not any(path.suffix == ".safetensors" for path in recorded.values()):
        raise AdapterError(f"{CONFIG} records no weights", where=where, hint="Adapt again with this version of genaug")
    return config, recorded


def check_format(config: Mapping[str, Any], registry: Registry, *, where: str) -> None:
    """Refuse an adapter of a format that its method, if it is installed, does not read.

    Args:
        config: ``genaug_config.json``, which `check_adapter` returned.
        registry: Where methods are looked up.
        where: How messages name the adapter.

    Raises:
        AdapterError: It is such.
    """
    method, found = config["method"], config["format"]
    if method not in registry.names("generator"):
        return
    model = registry.config_model(registry.component("generator", method))
    if not (isinstance(model, type) and issubclass(model, Options)) or model.adapter_format in (None, found):
        return
    raise AdapterError(
        f"an adapter of method {method!r}, format {found!r}"[:200],
        where=where,
        allowed=model.adapter_format,
        hint="A newer format needs a newer genaug",
    )


def check_public_base(config: Mapping[str, Any], *, where: str, hint: str) -> None:
    """Refuse a base model that is a path: on this machine it would be something else, or nothing.

    Raises:
        AdapterError: It is such.
    """
    base = config["base"]
    if not _PUBLIC.fullmatch(base) or ".." in base:
        raise AdapterError(f"its base model is {base!r}, a path"[:200], where=where, hint=hint)


def foreign_labels(table: Any) -> LabelSpace:
    """Read a class table that a stranger wrote, which may name no file and no set of this machine.

    Raises:
        ConfigError: It is no table with all it needs inside.
    """
    if not isinstance(table, dict) or not isinstance(table.get("names"), dict):
        raise ConfigError("it has no class names", allowed="{names: {id: name}, ignore_index}")
    try:
        return LabelSpace.from_config(table)
    except ConfigError as error:
        raise ConfigError(f"its class table is wrong: {error}"[:300]) from None


def _recorded(folder: Path, config: Mapping[str, Any], where: str) -> dict[str, Path]:
    """Return the files that the ``..._sha256`` keys stand for: whatever the method calls them."""
    hashes = {key: str(value) for key, value in config.items() if key.endswith("_sha256")}
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix not in (".safetensors", ".json") or name == CONFIG or not path.is_file():
            continue
        sha256 = sha256_of(path)
        if sha256 in hashes.values():
            found[name] = path
            hashes = {key: value for key, value in hashes.items() if value != sha256}
    if hashes:
        what = ", ".join(key.removesuffix("_sha256") for key in hashes)
        raise AdapterError(f"missing or damaged: {what}"[:200], where=where, hint=_AGAIN)
    return found


def adapter_parcel(folder: Path, repo: str, wishes: Wishes) -> Parcel:
    """Return what to publish of an adapter folder; nothing of the folder changes.

    Raises:
        AdapterError: The folder is incomplete, damaged, or its weights are not finite.
        ConfigError: Its base model is a folder of this machine, or something else would go that must not.
    """
    config, recorded = check_adapter(folder)
    old, base = config["base"], wishes.base or config["base"]
    _check_base(base, known_by_path=wishes.base is None and Path(base).exists())
    if is_reference(base):  # others, PEFT among them, know it by its plain name
        ref = HubRef.parse(base, revision=wishes.base_revision)
        base, config = ref.repo, {**config, "base": ref.repo, "revision": ref.revision or config.get("revision")}
    elif wishes.base or wishes.base_revision:
        config = {**config, "base": base, "revision": wishes.base_revision}
    labels = LabelSpace.from_config(config["labels"])
    files: dict[str, Path | bytes] = {}
    for name, path in recorded.items():
        _check_published(path, f"{folder}, {name}")
        files[name] = inside(folder, path)
    notes = [f"{CONFIG}: a path of this machine is left out ({text})" for text in machine_paths(config)]
    public = {**clean(config), "labels": config["labels"]}  # names of classes stay, whatever they look like
    files[CONFIG] = _json(public)
    if PEFT_CONFIG not in files and (folder / PEFT_CONFIG).is_file():
        peft = read_table(inside(folder, folder / PEFT_CONFIG), hint=_AGAIN)
        named = {"base_model_name_or_path": public["base"], "revision": public.get("revision")}
        files[PEFT_CONFIG] = _json(clean({**peft, **named}))
    pictures = _pictures(folder) if wishes.pictures else {}
    if f"{PICTURES}/{_PREVIEW}" in pictures:
        notes.append(f"{PICTURES}/{_PREVIEW} shows labelled images of the training set; --no-pictures leaves it out")
    card = folder / CARD
    text = inside(folder, card).read_text("utf-8", errors="replace") if card.is_file() else ""
    text = without_paths(text.replace(old, base))
    files |= pictures
    files[CARD] = adapter_card(text, public, repo=repo, labels=labels, wishes=wishes, pictures=list(pictures))
    about = {"method": config["method"], "base": public["base"], "base_revision": public.get("revision")}
    return Parcel("model", files, tuple(f"{PICTURES}/{name}" for name in (_PREVIEW, _LOSSES)), about, notes)


def _check_base(base: str, *, known_by_path: bool) -> None:
    if base in default_registry().names("base"):
        return
    if known_by_path or is_machine_path(base) or base.startswith(".") or base.count("/") != 1:
        raise ConfigError(
            f"{base!r} is a folder of this machine, which nobody else has",
            where="base",
            allowed="a Hub id, or a base model that a plugin ships",
            hint="Say where others find it with --base org/name",
        )


def _check_published(path: Path, where: str) -> None:
    """Refuse files that may not change, because their hash is recorded, and that hold paths of this machine."""
    found = machine_paths(read_table(path, hint=_AGAIN) if path.suffix == ".json" else check_weights(path, where=where))
    if found:
        raise AdapterError(f"it holds a path of this machine ({found[0]})", where=where, hint="Adapt again without it")


def _pictures(folder: Path) -> dict[str, Path | bytes]:
    """Return the newest preview and the loss curve, without whatever else a PNG may carry.

    Raises:
        AdapterError: A picture cannot be read.
        ConfigError: A link leads out of the folder.
    """
    from PIL import Image

    previews = sorted((folder / "previews").glob("*.png"))
    chosen = {_PREVIEW: previews[-1]} if previews else {}
    if (folder / _LOSSES).is_file():
        chosen[_LOSSES] = folder / _LOSSES
    files: dict[str, Path | bytes] = {}
    for name, path in chosen.items():
        buffer = io.BytesIO()
        inside(folder, path)
        try:
            with Image.open(path) as picture:
                picture.convert("RGB").save(buffer, "PNG")
        except (OSError, SyntaxError, ValueError) as error:
            raise AdapterError(
                f"no picture ({error})", where=str(path), hint="Remove it, or leave pictures out with --no-pictures"
            ) from None
        files[f"{PICTURES}/{name}"] = buffer.getvalue()
    return files


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
