"""What our extras bring in, by the metadata of what is installed."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Each has no CPU build next to a pinned torch, or brings gigabytes of CUDA libraries that nobody asked for.
UNWANTED = re.compile(r"torchvision|triton|nvidia-.*|xformers|flash-attn|detectron2|albumentationsx")


def extras() -> list[str]:
    return metadata.metadata("genaug").get_all("Provides-Extra") or []


def needed_by(name: str, extra: str) -> set[tuple[str, str]]:
    """Return (distribution, extra) pairs that a distribution with an extra asks for on this machine."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return set()  # not installed here, so it cannot be walked; its own name is judged all the same
    needed = set()
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            own = canonicalize_name(requirement.name)
            needed |= {(own, asked) for asked in {"", *requirement.extras}}
    return needed


def reached(extra: str) -> set[str]:
    todo, done = {("genaug", ""), ("genaug", extra)}, set()
    while todo:
        pair = todo.pop()
        done.add(pair)
        todo |= needed_by(*pair) - done
    return {name for name, _ in done}


@pytest.mark.parametrize("extra", ["", *extras()])
def test_no_extra_reaches_torchvision_or_cuda_libraries(extra: str) -> None:
    names = reached(extra)
    assert {"torch", "numpy", "pluggy"} <= names
    assert [name for name in names if UNWANTED.fullmatch(name)] == []


def test_the_walk_sees_what_extras_add() -> None:
    assert "diffusers" not in reached("")
    assert {"diffusers", "peft", "importlib-metadata"} <= reached("diffusion")
    assert {"pot", "albumentations", "diffusers", "scikit-image"} <= reached("all")
    assert not {"ray", "pytest"} & reached("all")
