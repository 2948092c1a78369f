"""Which library makes views: the order, devices, libraries that are absent or broken."""

import importlib
import sys

import pytest

from genaug.errors import MissingDependencyError
from genaug.step_config import ViewsConfig
from genaug_torch import StrongView, WeakView
from genaug_torch.libraries import ORDER, choose, load


def installed(monkeypatch, *names):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name in names else None)


def makers(broken=()):
    def make(name):
        if name in broken:
            raise MissingDependencyError(f"{name} cannot be imported")
        return f"made by {name}"

    return {name: (lambda name=name: make(name)) for name in (*ORDER, "builtin")}


@pytest.mark.parametrize(
    ("names", "device", "expected"),
    [
        (("kornia", "torchvision", "albumentations"), "cpu", "albumentations"),
        (("kornia", "torchvision", "albumentations"), "cuda", "torchvision"),
        (("kornia", "albumentations"), "cuda", "kornia"),
        (("kornia", "torchvision"), "cpu", "torchvision"),
        (("albumentations",), "cuda", "builtin"),
        ((), "cpu", "builtin"),
    ],
)
def test_auto_takes_the_first_that_is_installed(monkeypatch, names, device, expected):
    installed(monkeypatch, *names)
    assert choose("auto", makers(), device=device, where="here") == (expected, f"made by {expected}")


def test_auto_passes_over_what_cannot_be_imported(monkeypatch):
    installed(monkeypatch, "torchvision", "kornia")
    with pytest.warns(UserWarning, match="here: torchvision cannot be imported, so another library is taken"):
        found = choose("auto", makers(broken=["torchvision"]), device="cpu", where="here")
    assert found == ("kornia", "made by kornia")
    with pytest.raises(MissingDependencyError, match="torchvision"):
        choose("torchvision", makers(broken=["torchvision"]), device="cpu", where="here")


def test_a_broken_library_is_told_from_an_absent_one(monkeypatch):
    with pytest.raises(MissingDependencyError, match=r"genaug_absent is not installed.*pip install genaug_absent"):
        load("genaug_absent.part", where="here")

    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(MissingDependencyError, match=r"cannot be imported \(operator .*nms.*build for this torch"):
        load("torchvision.transforms.v2", where="here")


@pytest.mark.parametrize("view", [StrongView, WeakView])
def test_a_named_library_that_is_absent_is_told_at_once(monkeypatch, view):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'genaug\[albumentations\]'"):
        view(ViewsConfig(strong="albumentations", weak="albumentations"))


def test_views_take_what_auto_finds(monkeypatch):
    config = ViewsConfig(weak="auto")
    assert StrongView(config).library("cpu") == WeakView(config).library("cpu") == "albumentations"
    installed(monkeypatch)
    assert StrongView(config).library("cpu") == WeakView(config).library("cpu") == "builtin"
    assert WeakView().library("cpu") == "none"


def test_no_library_is_imported_before_it_is_needed(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(name))
    StrongView(ViewsConfig())
    WeakView(ViewsConfig(weak="auto"))
