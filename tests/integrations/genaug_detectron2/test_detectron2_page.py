"""The code of docs/how-to/detectron2.md, which is indented there so that pages run where there is no detectron2."""

import re
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from detectron2_helpers import config, register, write_toys
from mask2former import add_maskformer2_config
from noise_helpers import OFFLINE, make_recipe

from genaug.engine import run
from genaug_detectron2 import unlabeled_dicts

PAGE = Path(__file__).parents[3] / "docs/how-to/detectron2.md"


def blocks():
    return [textwrap.dedent(code) for code in re.findall(r"^ +```python\n(.*?)^ +```$", PAGE.read_text(), re.M | re.S)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the page takes for granted: datasets, a store called ``synthetic``, a configuration file."""
    monkeypatch.chdir(tmp_path)
    for name, numbers in (("street_train", range(4)), ("street_more", range(10, 14)), ("street_val", range(20, 22))):
        (tmp_path / name).mkdir()
        register(name, write_toys(tmp_path / name, numbers))
    names = {1: "sky", 4: "grass", 5: "wall"}
    run(make_recipe(tmp_path / "made", labels=names, data={"odd_every": 0}), device="cpu", stages=OFFLINE)
    (tmp_path / "made/out").rename("synthetic")
    cfg = config(Path("output"))
    Path("output").mkdir()
    model = {key: cfg.MODEL[key] for key in ("META_ARCHITECTURE", "DEVICE", "PIXEL_STD")}
    head = {key: cfg.MODEL.SEM_SEG_HEAD[key] for key in ("IN_FEATURES", "NUM_CLASSES", "CONVS_DIM", "NORM")}
    table = {
        "MODEL": {**model, "BACKBONE": {"NAME": "ToyBackbone"}, "SEM_SEG_HEAD": head},
        "INPUT": {"MIN_SIZE_TRAIN": [40], "MAX_SIZE_TRAIN": 80, "MIN_SIZE_TEST": 40, "MAX_SIZE_TEST": 80},
        "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 3, "STEPS": [], "BASE_LR": 0.01, "WARMUP_ITERS": 0},
        "DATASETS": {"TRAIN": ["street_train"], "TEST": ["street_val"]},
        "DATALOADER": {"NUM_WORKERS": 0},
        "OUTPUT_DIR": "output",
        "GENAUG": {"OVERRIDES": ["views.strong=builtin"]},
    }
    Path("config.yaml").write_text(yaml.safe_dump(table))
    return tmp_path


def test_the_page(folder, capsys):
    names = {"__name__": "__main__"}
    script, *others = blocks()
    assert sum("# genaug" in line for line in script.splitlines()) <= 10
    for code in (script, *others):
        exec(compile(code, PAGE.name, "exec"), names)
    loss, teacher = (float(text) for text in re.findall(r"\(([\d.]+), \d+\)", capsys.readouterr().out)[-2:])
    assert loss > 0
    assert 0 <= teacher <= 100
    assert 0 <= names["simple"].storage.latest()["teacher/sem_seg/mIoU"][0] <= 100  # of the hook in a list
    assert set(torch.load("teacher.pth", weights_only=True)["model"]) == set(names["model"].state_dict())
    loader = names["OwnTrainer"].build_train_loader(names["cfg"])
    assert "genaug" in next(iter(loader))[0]
    cfg = names["cfg"].clone()
    cfg.defrost()
    add_maskformer2_config(cfg)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.MIN_SIZE_TRAIN = False, (20,)
    mapper = names["MaskTrainer"].build_unlabeled_mapper(cfg)
    made = mapper(unlabeled_dicts("street_more")[0])
    assert made["image"].shape == (3, 20, 28)
    assert "sem_seg" not in made
