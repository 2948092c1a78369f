"""A published adapter as a generator, ready to use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genaug.hub.adapters import CONFIG, check_adapter, check_format, check_public_base
from genaug.hub.reference import HubRef, is_reference, local_path
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.registry import Registry, default_registry

if TYPE_CHECKING:
    from genaug.interfaces import Generator


#: Options that a stranger's file does not set: what is trained, where files are, and what protects or costs memory.
_OURS = frozenset(
    {"training", "adapter", "controlnet", "safety_checker", "batch_size", "dtype", "target_modules", "rank"}
)


class Pretrained(NamedTuple):
    """What `from_pretrained` returns.

    Args:
        generator: Prepared, on its device.
        labels: Classes that the adapter knows.
        folder: Where the adapter lies.
    """

    generator: Generator
    labels: LabelSpace
    folder: Path


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    device: str = "cpu",
    registry: Registry | None = None,
    **options: Any,
) -> Pretrained:
    """Load an adapter with its base model, set as it was trained.

    Args:
        name: ``org/name`` on the Hub (with ``hf-hub:`` or ``@revision`` if you like), or a folder.
        revision: Branch, tag or commit of the adapter.
        device: Torch device.
        registry: Where generators come from; everything installed by default.
        options: Of the generator, over what the adapter was trained with.

    Raises:
        HubError: It cannot be had.
        AdapterError: It is not safe to use, or does not fit its base model.
        ConfigError, UnknownComponentError: An option is wrong; no plugin provides its method.

    Example:
        >>> generator, labels, _ = from_pretrained("org/name", revision="v1", device="cuda")  # doctest: +SKIP
    """
    local = not is_reference(name) and Path(name).expanduser().is_dir()
    folder = local_path(name if local else str(HubRef.parse(str(name), revision=revision)))
    config, _ = check_adapter(folder)
    labels = LabelSpace.from_config(config["labels"])
    registry = registry or default_registry()
    check_format(config, registry, where=str(name))  # first: what a newer format means by the rest is not known
    component = registry.component("generator", config["method"], where=str(folder / CONFIG))
    model = registry.config_model(component)
    known = frozenset() if model is None else frozenset(model.model_fields)
    if not local and "base" not in options:
        check_public_base(config, where=str(name), hint="Pass base=")
    built = BuildContext(Path(), labels, registry, device).build(
        "generator",
        config["method"],
        {**_trained(config, known), **options, "adapter": str(folder.resolve())},
        where=str(name),
    )
    built.prepare(labels, device=device)
    return Pretrained(built, labels, folder)


def _trained(config: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Return what ``genaug_config.json`` says that is an option of the generator, the sampler's included."""
    sampler = config.get("sampler")
    settings = {**config, **(sampler if isinstance(sampler, Mapping) else {})}
    return {key: value for key, value in settings.items() if key in known - _OURS}
