"""Libraries of image operations that the user may have: which one is taken, and how it is imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from genaug.errors import MissingDependencyError, warn_caller

Made = TypeVar("Made")

#: What ``auto`` tries, in this order, before our own operations.
ORDER = ("albumentations", "torchvision", "kornia")
#: Works on numpy arrays: a GPU would wait for its images to come and go.
ON_CPU = "albumentations"
INSTALL = {"albumentations": "pip install 'genaug[albumentations]'"}


def choose(choice: str, makers: Mapping[str, Callable[[], Made]], *, device: str, where: str) -> tuple[str, Made]:
    """Return the name of a library, and what its maker makes.

    Args:
        choice: A key of `makers`, or ``auto``: the first of `ORDER` that is installed and can be imported, else
            ``builtin``. A library that is installed but broken is passed over with a warning.
        makers: By name of library, ``builtin`` among them.
        device: Type of the images' device; ``auto`` takes albumentations on the CPU only.
        where: Option that says so, for messages.

    Raises:
        MissingDependencyError: The library that `choice` names cannot be imported.
    """
    if choice != "auto":
        return choice, makers[choice]()
    for name in ORDER:
        if (name == ON_CPU and device != "cpu") or importlib.util.find_spec(name) is None:
            continue
        try:
            return name, makers[name]()
        except MissingDependencyError as error:
            warn_caller(f"{where}: {error.found}, so another library is taken")
    return "builtin", makers["builtin"]()


def load(module: str, *, where: str) -> Any:
    """Import a module of a library that nothing of ours requires.

    Raises:
        MissingDependencyError: The import fails, in whatever way: a torchvision built for another torch raises
            RuntimeError.
    """
    library = module.partition(".")[0]
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask a server for the newest version
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in {library, module}:
            found, hint = f"{library} is not installed", INSTALL.get(library, f"pip install {library}")
        else:
            found, hint = f"{library} cannot be imported ({error})", "Install it again, in a build for this torch"
        raise MissingDependencyError(found, where=where, hint=hint) from error
