"""Which device to use."""

from __future__ import annotations

import os

from genaug.errors import ConfigError


def resolve_device(name: str) -> str:
    """Return a torch device string.

    ``auto`` is a CUDA device if there is one (number ``LOCAL_RANK`` under torchrun, so that every process has its own;
    ``cuda`` likewise), else Apple's ``mps``, else ``cpu``. Torch is imported for anything but ``cpu``.

    Raises:
        ConfigError: Not a device, or this machine has none of that kind.
    """
    if name == "cpu":
        return name
    import torch

    if name in ("auto", "cuda"):
        if torch.cuda.is_available():
            return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
        if name == "auto":
            return "mps" if torch.backends.mps.is_available() else "cpu"
    allowed = "auto, cpu, cuda, cuda:<number> or mps"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r}", where="--device", allowed=allowed) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{name!r}, but torch sees {torch.cuda.device_count()} CUDA devices here"
        raise ConfigError(found, where="--device", allowed=allowed, hint="Is a CUDA build of torch installed?")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"{name!r}, but torch sees no such device here", where="--device", allowed=allowed)
    return name
