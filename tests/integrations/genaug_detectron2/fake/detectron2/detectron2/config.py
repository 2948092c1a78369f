from __future__ import annotations

import ast
import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


class CfgNode(dict):
    """A dictionary whose keys are attributes; keys that are new may be assigned, as in the real one before a merge."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def clone(self) -> CfgNode:
        return copy.deepcopy(self)

    def merge_from_file(self, cfg_filename: str) -> None:
        self._merge(yaml.safe_load(Path(cfg_filename).read_text()))

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        for name, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
            *parents, last = name.split(".")
            node = self
            for parent in parents:
                node = node[parent]
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval(value)
            node._merge({last: value})

    def _merge(self, table: dict[str, Any]) -> None:
        for name, value in table.items():
            old = self[name]
            if isinstance(old, CfgNode):
                old._merge(value)
            else:
                self[name] = type(old)(value) if isinstance(old, list | tuple | float) else value

    def defrost(self) -> None:
        pass

    def freeze(self) -> None:
        pass


def _node(table: dict[str, Any]) -> CfgNode:
    return CfgNode({name: _node(value) if isinstance(value, dict) else value for name, value in table.items()})


def get_cfg() -> CfgNode:
    head = {
        "IN_FEATURES": ["p2", "p3", "p4", "p5"], "IGNORE_VALUE": 255, "NUM_CLASSES": 54, "CONVS_DIM": 128,
        "COMMON_STRIDE": 4, "NORM": "GN", "LOSS_WEIGHT": 1.0,
    }  # fmt: skip
    model = {
        "META_ARCHITECTURE": "GeneralizedRCNN", "DEVICE": "cuda", "WEIGHTS": "", "BACKBONE": {"NAME": ""},
        "PIXEL_MEAN": [103.53, 116.28, 123.675], "PIXEL_STD": [1.0, 1.0, 1.0], "SEM_SEG_HEAD": head,
    }  # fmt: skip
    sizes = {"MIN_SIZE_TRAIN": (800,), "MAX_SIZE_TRAIN": 1333, "MIN_SIZE_TEST": 800, "MAX_SIZE_TEST": 1333}
    solver = {
        "IMS_PER_BATCH": 16, "MAX_ITER": 40000, "STEPS": (30000,), "BASE_LR": 0.001, "WARMUP_ITERS": 1000,
        "CHECKPOINT_PERIOD": 5000,
    }  # fmt: skip
    return _node(
        {
            "MODEL": model,
            "INPUT": {"FORMAT": "BGR", **sizes},
            "SOLVER": solver,
            "DATASETS": {"TRAIN": (), "TEST": ()},
            "DATALOADER": {"NUM_WORKERS": 4},
            "TEST": {"EVAL_PERIOD": 0},
            "OUTPUT_DIR": "./output",
            "SEED": -1,
        }
    )


class LazyCall:
    def __init__(self, target: Any) -> None:
        self._target = target

    def __call__(self, **kwargs: Any) -> dict[str, Any]:
        return {"_target_": self._target, **kwargs}


def instantiate(cfg: Any) -> Any:
    if not isinstance(cfg, dict) or "_target_" not in cfg:
        return cfg
    return cfg["_target_"](**{name: instantiate(value) for name, value in cfg.items() if name != "_target_"})
