"""Every name and argument of the fakes exists in the real ones; runs where those can be imported."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import detectron2
import pytest

FAKE = Path(__file__).parent / "fake"
MODULES = [
    "detectron2.checkpoint", "detectron2.config", "detectron2.data", "detectron2.engine", "detectron2.engine.hooks",
    "detectron2.engine.train_loop", "detectron2.evaluation", "detectron2.layers", "detectron2.modeling",
    "detectron2.structures", "detectron2.utils.comm", "detectron2.utils.events", "detectron2.utils.file_io",
    "mask2former",
]  # fmt: skip
#: Of the fakes alone: how they build what the real ones build from registries.
OWN = {"mask2former.MaskFormer.build", "mask2former.MaskFormerHead"}
#: Where the real ones have names that are only in submodules.
ELSEWHERE = {
    "detectron2.modeling.SemSegFPNHead": "detectron2.modeling.meta_arch.semantic_seg",
    "detectron2.modeling.sem_seg_postprocess": "detectron2.modeling.postprocessing",
    "detectron2.data.Metadata": "detectron2.data.catalog",
    "mask2former.MaskFormer": "mask2former.maskformer_model",
}
#: Arguments by position that the real ones take through ``@configurable``, as ``cfg``.
CONFIGURABLE = {
    "DatasetMapper", "MaskFormerSemanticDatasetMapper", "build_detection_test_loader", "build_detection_train_loader",
}  # fmt: skip
MISSING = object()


def arguments(function):
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [p.name for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and not p.name.startswith("_")]


def surface(module):
    """Return name -> arguments of what a module defines, methods included; None for what has none."""
    found = {}
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        found[name] = arguments(value) if callable(value) else None
        for inner, method in vars(value).items() if inspect.isclass(value) else ():
            if not inner.startswith("_"):
                found[f"{name}.{inner}"] = arguments(getattr(value, inner)) if callable(method) else None
    return found


def of_the_fakes():
    code = (
        "import sys, json, importlib;"
        f"sys.path[:0] = {[str(FAKE / 'detectron2'), str(FAKE / 'mask2former'), str(Path(__file__).parent)]};"
        "import test_detectron2_surface as own;"
        "print(json.dumps({m: own.surface(importlib.import_module(m)) for m in own.MODULES}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(
    str(FAKE) in str(detectron2.__file__), reason="detectron2 is not installed: the fake cannot be compared"
)
def test_the_fakes_have_no_surface_of_their_own():
    strange = []
    for module, names in of_the_fakes().items():
        for name, given in names.items():
            full = f"{module}.{name}"
            if any(full.startswith(own) for own in OWN):
                continue
            owner, *inner = name.split(".")
            place = ELSEWHERE.get(f"{module}.{owner}", module)
            value = getattr(importlib.import_module(place), owner, MISSING)
            for part in inner:
                value = getattr(value, part, MISSING)
            if value is MISSING:
                strange.append(f"{full}: not in the real one")
            elif given is not None and owner not in CONFIGURABLE and (found := arguments(value)) is not None:
                taken = inspect.signature(value).parameters.values()
                if any(p.kind is p.VAR_POSITIONAL for p in taken):  # @configurable
                    found = arguments(inspect.unwrap(value.__init__)) or given
                lacking = [argument for argument in given if argument not in found]
                strange += [f"{full}: no argument {', '.join(lacking)}"] if lacking else []
    assert not strange, "\n".join(strange)
