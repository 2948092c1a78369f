"""Mask2Former's own repository where it can be imported, else a mask classifier with its names and outputs."""

import shutil
from functools import cache
from pathlib import Path

import mask2former
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2_helpers import CLASSES, ToyTrainer, config

from genaug_detectron2 import SelfTraining, StreamLoader, SyntheticMapper, save_teacher
from genaug_detectron2.network import Network
from genaug_torch import OutputReader

pytestmark = pytest.mark.usefixtures("toys")

FAST = ["teacher.ema=0.9", "views.strong=none", "labeler.threshold=0"]
SENSE = [*FAST, "labeler.image_gate=null", "supervised.burn_in=0"]
POINTS = ["terms.0.set_loss.points=400"]
RECIPES = {
    "upc": ("upc", FAST, ["upc"]),
    "maskmatch": ("maskmatch", [*FAST, "terms.1.mixer.patch=8"], ["multi-scale", "local-consistency"]),
    "sense, projected": ("sense-query", [*SENSE, "terms.0.loss=pixel"], ["transport"]),
    "sense, sets": ("sense-query", [*SENSE, *POINTS], ["transport"]),
}


def query_config(out, **genaug):
    cfg = config(out, **genaug)
    mask2former.add_maskformer2_config(cfg)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "MaskFormer", "ToyPyramid"
    head, options = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    head.NAME, head.PIXEL_DECODER_NAME = "MaskFormerHead", "MSDeformAttnPixelDecoder"
    head.IN_FEATURES, head.CONVS_DIM, head.MASK_DIM = ["p2", "p3", "p4", "p5"], 32, 32
    head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES, head.TRANSFORMER_ENC_LAYERS = ["p3", "p4", "p5"], 1
    head.NORM = "GN"
    options.TRANSFORMER_IN_FEATURE, options.NHEADS = "multi_scale_pixel_decoder", 8
    options.NUM_OBJECT_QUERIES, options.HIDDEN_DIM, options.DIM_FEEDFORWARD = 6, 32, 32
    options.DEC_LAYERS, options.DROPOUT, options.TRAIN_NUM_POINTS = 3, 0.0, 200
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.SIZE_DIVISIBILITY = False, 64
    cfg.SOLVER.BASE_LR = 0.003
    return cfg


class QueryTrainer(ToyTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        mapper = SyntheticMapper.from_config(cfg, mask2former.MaskFormerSemanticDatasetMapper(cfg, True))
        return StreamLoader(DatasetCatalog.get("toy_train"), mapper, batch_size=2, seed=3)

    @classmethod
    def build_unlabeled_mapper(cls, cfg):
        return DatasetMapper(cfg, is_train=True)

    def __init__(self, cfg):
        super().__init__(cfg)
        self._trainer.optimizer = torch.optim.AdamW(self.model.parameters(), cfg.SOLVER.BASE_LR)
        self.scheduler = None

    def build_hooks(self):  # without the scheduler of the other optimizer
        return [hook for hook in super().build_hooks() if type(hook).__name__ != "LRScheduler"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a function that gives the finished run of a recipe."""

    @cache
    def run(name):
        recipe, overrides, _ = RECIPES[name]
        cfg = query_config(tmp_path_factory.mktemp("run"), RECIPE=recipe, OVERRIDES=overrides)
        return trained(cfg)

    return run


def trained(cfg, *, resume=False):
    torch.manual_seed(0)
    trainer = QueryTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", RECIPES)
def test_losses_fall_in_twenty_iterations(name, runs):
    seen = runs(name).recorder.values
    assert {"loss_ce", "loss_mask"} <= set(seen)
    for key in ["total_loss", *(f"loss_genaug_{term}" for term in RECIPES[name][2])]:
        values = torch.tensor(seen[key])
        assert len(values) == 20
        assert values[-5:].mean() < values[:5].mean(), key


def test_a_resumed_run_goes_on_with_model_and_teacher(runs, tmp_path):
    """Mask2Former draws its points from torch's global stream, so only what is loaded can be the same."""
    whole = runs("upc")
    file = Path(whole.cfg.OUTPUT_DIR) / "model_0000009.pth"
    shutil.copy(file, tmp_path)
    (tmp_path / "last_checkpoint").write_text(file.name)
    cfg = query_config(tmp_path, RECIPE="upc", OVERRIDES=FAST)
    cfg.SOLVER.MAX_ITER = 10  # it begins with the eleventh, so nothing is left to do
    again = trained(cfg, resume=True)
    teacher = next(hook for hook in again._hooks if isinstance(hook, SelfTraining)).step.teacher.state_dict()
    saved = torch.load(file, weights_only=True)
    for found, expected in ((again.model.state_dict(), saved["model"]), (teacher, of_hook(saved)["teacher"])):
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def of_hook(saved):
    return saved["trainer"]["hooks"]["SelfTraining"]


def test_the_teacher_as_a_model_of_its_own(runs, tmp_path):
    whole = runs("upc")
    save_teacher(Path(whole.cfg.OUTPUT_DIR) / "model_final.pth", tmp_path / "teacher.pth")
    model = QueryTrainer.build_model(query_config(tmp_path))
    model.load_state_dict(torch.load(tmp_path / "teacher.pth", weights_only=True)["model"])
    latest = whole.storage.latest()["teacher/sem_seg/mIoU"][0]
    assert whole.test(whole.cfg, model)["sem_seg"]["mIoU"] == pytest.approx(latest)


@torch.no_grad()
def test_its_scores_are_those_of_its_own_inference(tmp_path):
    torch.manual_seed(1)
    model = QueryTrainer.build_model(query_config(tmp_path)).eval()
    network = Network(model, image_format="BGR").eval()
    assert network.kind == "queries"
    inputs = [{"image": torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8), "height": 40, "width": 56}]
    expected = model(inputs)[0]["sem_seg"]
    prepared, _ = network.prepare(inputs, [])
    assert prepared.images.shape == (1, 3, 64, 64)
    output = network(prepared.images)
    made = OutputReader("queries", order="resize-logits")(output, (64, 64)).values
    assert made.shape[1] == len(CLASSES)
    torch.testing.assert_close(made[0, :, :40, :56], expected)
    assert len(OutputReader("queries").layers(output)) > 1  # the inner layers, for the set loss
