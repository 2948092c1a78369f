import math
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall, instantiate
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, hooks
from detectron2.evaluation import SemSegEvaluator, inference_on_dataset
from detectron2_helpers import Recorder, ToyTrainer, config

from genaug.errors import ConfigError, SampleError
from genaug_detectron2 import (
    SelfTraining,
    SelfTrainingMixin,
    StreamLoader,
    SyntheticMapper,
    save_teacher,
    unlabeled_dicts,
)
from genaug_detectron2.losses import TrainingModel

pytestmark = pytest.mark.usefixtures("toys")

RECIPES = {
    "sense": ["loss_genaug_transport"],
    "upc": ["loss_genaug_upc"],
    "maskmatch": ["loss_genaug_multi-scale", "loss_genaug_local-consistency"],
}
#: Classes are colours here, so colours stay; and of an untrained model, few pixels are above a threshold.
FAST = ["teacher.ema=0.9", "views.strong=builtin", "views.jitter=0", "views.gray=0", "labeler.threshold=0"]
OPTIONS = {"maskmatch": ["terms.1.mixer.patch=8"]}


class StreamTrainer(ToyTrainer):
    """Reads its labelled images from a stream, too, so that a resumed run sees what it would have seen."""

    @classmethod
    def build_train_loader(cls, cfg):
        return StreamLoader(DatasetCatalog.get("toy_train"), DatasetMapper(cfg, is_train=True), batch_size=2, seed=3)


def trained(cfg, kind=StreamTrainer, *, resume=False):
    torch.manual_seed(0)
    trainer = kind(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def hook_of(trainer):
    return next(hook for hook in trainer._hooks if isinstance(hook, SelfTraining))


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def upc(tmp_path_factory):
    """A finished run of UPC, its checkpoints and all."""
    return trained(config(tmp_path_factory.mktemp("upc"), RECIPE="upc", OVERRIDES=FAST))


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_fall_in_twenty_iterations(recipe, upc, tmp_path):
    overrides = [*FAST, *OPTIONS.get(recipe, [])]
    trainer = upc if recipe == "upc" else trained(config(tmp_path, RECIPE=recipe, OVERRIDES=overrides), ToyTrainer)
    seen = trainer.recorder.values
    losses = ["loss_sem_seg", *RECIPES[recipe]]
    assert {name for name in seen if name.startswith("loss")} == set(losses)
    for name in [*losses, "total_loss"]:
        values = torch.tensor(seen[name])
        assert len(values) == 20
        assert values[-5:].mean() < values[:5].mean(), name
    summed = torch.tensor([seen[name] for name in losses]).sum(0)
    torch.testing.assert_close(summed, torch.tensor(seen["total_loss"]))
    assert all(0 <= share <= 1 for share in seen["genaug/kept"])


def test_model_and_teacher_are_evaluated_apart(upc):
    latest = {name: value for name, (value, _) in upc.storage.latest().items()}
    hook = hook_of(upc)
    for prefix, model in (("", upc.model), ("teacher/", hook.teacher)):
        expected = upc.test(upc.cfg, model)["sem_seg"]["mIoU"]
        assert latest[f"{prefix}sem_seg/mIoU"] == pytest.approx(expected)
    assert latest["teacher/sem_seg/mIoU"] > 30
    assert latest["teacher/sem_seg/mIoU"] != latest["sem_seg/mIoU"]
    assert not hook.teacher.training
    assert (Path(upc.cfg.OUTPUT_DIR) / "teacher").is_dir()


def test_the_trainer_gets_its_model_back(upc):
    assert type(upc.model).__name__ == "SemanticSegmentor"
    assert upc.model is upc.checkpointer.model


def test_checkpoints_hold_the_plain_model_and_plain_values(upc):
    state = torch.load(Path(upc.cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)
    assert same(state["model"], upc.model.state_dict())
    saved = state["trainer"]["hooks"]["SelfTraining"]
    assert saved["updates"] == saved["calls"] == 20  # the teacher after the last step, not before it
    assert same(saved["teacher"], hook_of(upc).step.teacher.state_dict())


def test_a_resumed_run_is_the_run(upc, tmp_path):
    shutil.copy(Path(upc.cfg.OUTPUT_DIR) / "model_0000009.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    torch.manual_seed(99)
    again = trained(config(tmp_path, RECIPE="upc", OVERRIDES=FAST), resume=True)
    assert again.start_iter == 10
    assert same(again.model.state_dict(), upc.model.state_dict())
    assert same(hook_of(again).step.teacher.state_dict(), hook_of(upc).step.teacher.state_dict())
    for name in ("loss_sem_seg", "loss_genaug_upc"):
        assert again.recorder.values[name] == upc.recorder.values[name][10:]


def test_the_teacher_as_a_model_of_its_own(upc, tmp_path):
    save_teacher(Path(upc.cfg.OUTPUT_DIR) / "model_final.pth", tmp_path / "teacher.pth")
    plain = config(tmp_path)
    plain.MODEL.WEIGHTS = str(tmp_path / "teacher.pth")
    trainer = ToyTrainer(plain)
    trainer.resume_or_load(resume=False)
    assert same(trainer.model.state_dict(), hook_of(upc).teacher.state_dict())
    assert not list(tmp_path.glob("*.tmp"))
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="no teacher"):
        save_teacher(tmp_path / "other.pth", tmp_path / "x.pth")


def test_a_resumed_run_without_a_teacher_is_told_of(tmp_path):
    plain = config(tmp_path)
    plain.SOLVER.MAX_ITER = 2
    trained(plain, ToyTrainer)
    cfg = config(tmp_path, RECIPE="upc", OVERRIDES=FAST)
    cfg.SOLVER.MAX_ITER = 3
    with pytest.warns(UserWarning, match="resumed at iteration 2 without a teacher"):
        trainer = trained(cfg, ToyTrainer, resume=True)
    assert hook_of(trainer).step.updates == 1


def test_without_a_recipe_nothing_is_added(tmp_path):
    trainer = ToyTrainer(config(tmp_path))
    assert not any(isinstance(hook, SelfTraining) for hook in trainer._hooks)


def short(tmp_path, *overrides, iterations=2, RECIPE="upc", **genaug):
    given = FAST[:-1] if RECIPE == "supervised" else FAST
    cfg = config(tmp_path, RECIPE=RECIPE, OVERRIDES=[*given, *overrides], **genaug)
    cfg.SOLVER.MAX_ITER = iterations
    cfg.DATASETS.TEST = ()
    tmp_path.mkdir(exist_ok=True)
    return cfg


def test_a_recipe_without_terms_only_keeps_the_teacher(tmp_path):
    trainer = trained(short(tmp_path, RECIPE="supervised", UNLABELED=()))
    # detectron2 names a single loss after the total alone
    assert {name for name in trainer.recorder.values if "loss" in name} == {"total_loss"}
    step = hook_of(trainer).step
    assert step.updates == 2
    # ema 0.9 with a ramp: the second update is half of each
    assert not same(step.teacher.model.model.state_dict(), trainer.model.state_dict())


def test_burn_in_and_the_weight_of_the_models_own_losses(tmp_path):
    plain = trained(short(tmp_path / "a", RECIPE="", iterations=4))
    halved = ["supervised.weight=0.5", "supervised.burn_in=3"]
    trainer = trained(short(tmp_path / "b", *halved, iterations=4, RECIPE="upc"))
    seen = trainer.recorder.values
    assert seen["total_loss"][0] == pytest.approx(plain.recorder.values["total_loss"][0] / 2)
    assert len(seen["total_loss"]) == 4
    assert len(seen["loss_genaug_upc"]) == 1
    step = hook_of(trainer).step
    assert (step.calls, step.updates) == (1, 4)


def test_synthetic_images_that_nobody_draws_are_told_of(tmp_path):
    DatasetCatalog.register("unused", lambda: DatasetCatalog.get("toy_more"))
    with pytest.warns(UserWarning, match="no mapper that draws from it"):
        StreamTrainer(config(tmp_path, SYNTHETIC="unused"))
    ToyTrainer(config(tmp_path, SYNTHETIC="unused"))  # wraps its mapper


def test_the_mapper_of_unlabelled_images(tmp_path):
    class Small(StreamTrainer):
        @classmethod
        def build_unlabeled_mapper(cls, cfg):
            cfg = cfg.clone()
            cfg.defrost()
            cfg.INPUT.MIN_SIZE_TRAIN = (24,)
            return DatasetMapper(cfg, is_train=True)

    for kind, height in ((StreamTrainer, 40), (Small, 24)):
        made = next(iter(hook_of(kind(short(tmp_path / kind.__name__))).unlabeled))
        assert {entry["image"].shape[1] for entry in made} == {height}
    assert hook_of(Small(short(tmp_path, UNLABELED=()))).unlabeled is None


def test_labelled_images_with_a_mapper_of_their_own_are_told_of(tmp_path, recwarn):
    def with_mapper(make, *bases):
        def build_train_loader(_, cfg):
            mapper = SyntheticMapper.from_config(cfg, make(cfg))
            if StreamTrainer in bases:
                return StreamLoader(DatasetCatalog.get("toy_train"), mapper, batch_size=2)
            return build_detection_train_loader(cfg, mapper=mapper)

        return type("Own", bases, {"build_train_loader": classmethod(build_train_loader)})

    def smaller(cfg):
        return DatasetMapper(**{"is_train": True, **DatasetMapper.from_config(cfg, True), "image_format": "RGB"})

    class Chosen:
        @classmethod
        def build_unlabeled_mapper(cls, cfg):
            return DatasetMapper(cfg, is_train=True)

    for base in (StreamTrainer, ToyTrainer):
        for make in (lambda cfg: lambda entry: entry, smaller):
            with pytest.warns(UserWarning, match="Override build_unlabeled_mapper"):
                with_mapper(make, base)(short(tmp_path))
            recwarn.clear()
            with_mapper(make, Chosen, base)(short(tmp_path))
            with_mapper(make, base)(short(tmp_path, RECIPE=""))  # trains on none
        with_mapper(lambda cfg: DatasetMapper(cfg, is_train=True), base)(short(tmp_path))
    assert not [w for w in recwarn if "build_unlabeled_mapper" in str(w.message)]


def test_the_loader_of_another_base_is_used(tmp_path):
    DatasetCatalog.register("inherited", lambda: DatasetCatalog.get("toy_more"))
    cfg = config(tmp_path, SYNTHETIC="inherited")

    class Mine(DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return StreamTrainer.build_train_loader(cfg)

    class Between(Mine):
        pass

    class Trainer(SelfTrainingMixin, Between):
        pass

    with pytest.warns(UserWarning, match="'inherited', but the loader has no mapper"):
        assert isinstance(Trainer(cfg).data_loader, StreamLoader)


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="needs unlabelled images"):
        trained(short(tmp_path, RECIPE="upc", UNLABELED=()))
    with pytest.raises(ConfigError, match=r"supervised\.loss"):
        trained(short(tmp_path, "supervised.loss=ohem", RECIPE="upc"))
    with pytest.raises(ConfigError, match="teacher"):
        _ = SelfTraining("supervised", image_format="RGB").teacher

    class Twice(StreamTrainer):
        def build_hooks(self):
            return [*super().build_hooks(), SelfTraining.from_config(self.cfg)]

    with pytest.raises(ConfigError, match="two hooks"):
        trained(short(tmp_path, RECIPE="upc"), Twice)


def test_labelled_pixels_are_needed_for_pasting(tmp_path):
    class Unlabeled(StreamTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return StreamLoader(unlabeled_dicts("toy_train"), DatasetMapper(cfg, is_train=True), batch_size=2)

        @classmethod
        def build_model(cls, cfg):
            class Lossless(type(super().build_model(cfg))):
                def forward(self, batched_inputs):
                    return {"loss": sum(p.sum() for p in self.parameters()) * 0}

            model = super().build_model(cfg)
            model.__class__ = Lossless
            return model

    with pytest.raises(SampleError, match="sem_seg"):
        trained(short(tmp_path, RECIPE="upc"), Unlabeled)
    trainer = trained(short(tmp_path, RECIPE="sense"), Unlabeled)  # pastes no labelled pixels
    assert math.isfinite(trainer.recorder.values["loss_genaug_transport"][0])


def test_an_error_in_training_gives_the_model_back(tmp_path):
    class Fails(HookBase):
        def after_step(self):
            raise RuntimeError("disk full")

    trainer = StreamTrainer(short(tmp_path, RECIPE="upc"))
    trainer.register_hooks([Fails()])
    with pytest.raises(RuntimeError, match="disk full"):
        trainer.train()
    assert not isinstance(trainer.model, TrainingModel)


def test_lazy_configs_and_the_simple_trainer(tmp_path):
    """As ``tools/lazyconfig_train_net.py`` does it: objects from a lazy configuration, hooks in a list."""
    model = ToyTrainer.build_model(config(tmp_path))
    mapper = DatasetMapper(config(tmp_path), is_train=True)
    lazy = LazyCall(SelfTraining)(
        recipe="sense",
        unlabeled=LazyCall(StreamLoader)(
            dicts=LazyCall(unlabeled_dicts)(names="toy_more"), mapper=mapper, batch_size=3, seed=1
        ),
        num_classes=3,
        image_format="BGR",
        overrides=FAST,
    )
    hook = instantiate(lazy)
    loader = StreamLoader(DatasetCatalog.get("toy_train"), mapper, batch_size=2)
    trainer = SimpleTrainer(model, loader, torch.optim.Adam(model.parameters(), 1e-3))
    checkpointer = DetectionCheckpointer(model, str(tmp_path), trainer=trainer)
    recorder = Recorder()
    (tmp_path / "teacher").mkdir()

    def do_test(model):
        evaluator = SemSegEvaluator("toy_val", distributed=False, output_dir=str(tmp_path / "teacher"))
        return inference_on_dataset(model, build_detection_test_loader(config(tmp_path), "toy_val"), evaluator)

    teacher = hook.eval_hook(2, do_test)
    nothing = hook.eval_hook(2, lambda _: None)  # as do_test of tools/lazyconfig_train_net.py without an evaluator
    trainer.register_hooks([hook, hooks.PeriodicCheckpointer(checkpointer, 2), teacher, nothing, recorder])
    trainer.train(0, 4)
    assert len(recorder.values["teacher/sem_seg/mIoU"]) == 3  # of the second iteration, which stays until the last
    assert len(recorder.values["loss_genaug_transport"]) == 4
    state = torch.load(tmp_path / "model_0000003.pth", weights_only=True)
    assert state["trainer"]["hooks"]["SelfTraining"]["batch"] == {"processes": 1, "unlabeled": 3}
    assert trainer.model is model
    for used in (teacher, nothing):  # the real EvalHook forgets its function after training
        trainer._hooks.remove(used)
    trainer.train(4, 5)  # once more: it goes on with the teacher
    assert hook.step.updates == 5


def test_distributed_data_parallel(tmp_path, upc):
    """One process: what is called, and what the gradients are, must not change by the wrapper."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:

        class Wrapped(StreamTrainer):
            def build_hooks(self):
                self.model = torch.nn.parallel.DistributedDataParallel(self.model)
                return super().build_hooks()

        cfg = short(tmp_path, RECIPE="upc", iterations=3)
        trainer = trained(cfg, Wrapped)
        assert hook_of(trainer).step.group is not None
        assert isinstance(trainer.model, torch.nn.parallel.DistributedDataParallel)
    finally:
        torch.distributed.destroy_process_group()
    for name in ("loss_sem_seg", "loss_genaug_upc"):
        assert trainer.recorder.values[name] == pytest.approx(upc.recorder.values[name][:3], rel=1e-5)
