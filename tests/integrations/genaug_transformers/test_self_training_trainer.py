"""The Trainer with a step: what it computes and saves, and that a run that goes on is the one that never stopped."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset
from transformers import Trainer, TrainingArguments

from genaug.errors import ConfigError, SampleError
from genaug_torch import MixedDataset, SemiSupervisedStep, UnlabeledStreams
from genaug_transformers import SegmentationCollator, SelfTrainingTrainer, WithUnlabeled

K, SIZE = 3, 32
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")

FIXMATCH = {
    "extends": "fixmatch",
    "teacher": {"ema": 0.9},
    "labeler": {"use": "threshold", "threshold": 0.2},
    "views": {"strong": "builtin"},
}
QUERIES = [
    "supervised.burn_in=0", "labeler.image_gate=null", "labeler.threshold=0.2", "supervised.set_loss.points=64",
    "terms.0.set_loss.points=64", "views.strong=builtin",
]  # fmt: skip


def data(labelled=8, unlabelled=5):
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(K, (labelled, 4, 4), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    masks[:, :2] = 255
    images = torch.rand(labelled + unlabelled, 3, SIZE, SIZE, generator=generator)
    return TensorDataset(images[:labelled], masks), images[labelled:]


def make_step(model, kind="logits", recipe=FIXMATCH, **more):
    return SemiSupervisedStep(model, recipe, kind=kind, num_classes=K, mean=MEAN, std=STD, **more)


def make(model, out, *, step=make_step, kind=SelfTrainingTrainer, trainer=None, dataset=None, **arguments):
    labelled, unlabelled = data()
    given = {
        "per_device_train_batch_size": 2, "max_steps": 4, "learning_rate": 1e-3, "report_to": [], "use_cpu": True,
        "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "seed": 5, **arguments,
    }  # fmt: skip
    return kind(
        model, TrainingArguments(str(out), **given), step=step, eval_dataset=labelled,
        train_dataset=WithUnlabeled(labelled, unlabelled) if dataset is None else dataset,
        data_collator=SegmentationCollator(mean=MEAN, std=STD), **(trainer or {}),
    )  # fmt: skip


def same(one, other):
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def accuracy(given):
    kept = given.label_ids != 255
    return {"accuracy": float((given.predictions == given.label_ids)[kept].mean()), "size": given.predictions.shape[1]}


@pytest.mark.parametrize("accumulated", [1, 2])
def test_training_is_the_plain_loop(make_model, tmp_path, accumulated):
    """Without dropout nothing but the batches is random, and those the Trainer draws."""
    model = make_model("upernet")
    twin, seen = copy.deepcopy(model).train(), []
    trainer = make(
        model, tmp_path, max_steps=3, gradient_accumulation_steps=accumulated, lr_scheduler_type="constant",
        max_grad_norm=0.0, weight_decay=0.0, optim="adamw_torch", adam_epsilon=1e-4,
    )  # fmt: skip
    collate = trainer.data_collator
    trainer.data_collator = lambda items: seen.append(collate(items)) or seen[-1]
    trainer.train()

    step = make_step(twin)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, weight_decay=0.0, eps=1e-4)
    for number in range(3):
        for batch in seen[number * accumulated : (number + 1) * accumulated]:
            loss, _ = step(batch["pixel_values"], batch["labels"], batch["unlabeled"])
            (loss / accumulated).backward()
        optimizer.step()
        optimizer.zero_grad()
        step.update()
    for mine, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(trainer.step.teacher.model.parameters(), step.teacher.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    assert (trainer.step.calls, trainer.step.updates) == (3 * accumulated, 3)
    logged = trainer.state.log_history[0]
    assert {"loss", "genaug/kept", "genaug/loss/supervised", "genaug/loss/weak-to-strong"} <= set(logged)
    parts = [value for name, value in logged.items() if name.startswith("genaug/loss/")]
    if accumulated == 1:
        assert sum(parts) == pytest.approx(logged["loss"], abs=1e-4)


def test_fixed_numbers_of_real_and_synthetic_images(make_model, tmp_path):
    labelled, real = data()
    streams = UnlabeledStreams({"real": real, "synthetic": 1 - real}, {"real": 1, "synthetic": 2})
    trainer = make(make_model("segformer"), tmp_path, max_steps=2, dataset=WithUnlabeled(labelled, streams))
    trainer.train()
    assert trainer.step.batch["unlabeled"] == 6
    assert trainer.step.calls == 2


def states(trainer):
    return copy.deepcopy((trainer.model, trainer.step.teacher.model)), (trainer.step.calls, trainer.step.updates)


def test_a_run_that_goes_on_is_the_one_that_never_stopped(make_model, tmp_path):
    """In the middle of an epoch, with dropout, and weights that the Trainer alone would not find again (SegFormer)."""
    options = {"max_steps": 5, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 3}
    options |= {"dataloader_num_workers": 1}

    def build(out):
        labelled, unlabelled = data()
        dataset = WithUnlabeled(MixedDataset(labelled, labelled, ratio=0.5, scheme="replace"), unlabelled)
        return make(make_model("segformer"), out, dataset=dataset, **options)

    whole = build(tmp_path / "whole")
    whole.train()
    again = build(tmp_path / "again")
    again.train(resume_from_checkpoint=tmp_path / "whole/checkpoint-3")
    (models, counts), (others, other_counts) = states(whole), states(again)
    assert counts == other_counts == (10, 5)
    for one, other in zip(models, others, strict=True):
        same(one, other)
    assert [x["loss"] for x in whole.state.log_history if "loss" in x][3:] == [
        x["loss"] for x in again.state.log_history if "loss" in x
    ][-2:]


def test_checkpoints_hold_the_teacher_and_a_plain_one_is_refused(make_model, tmp_path):
    trainer = make(make_model("segformer"), tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train()
    assert not (tmp_path / "checkpoint-2/self_training.part").exists()
    other = make_step(make_model("segformer"))
    other.load_state_dict(torch.load(tmp_path / "checkpoint-2/self_training.pt", weights_only=True))
    same(other.teacher.model, trainer.step.teacher.model)
    trainer.save_model(str(tmp_path / "final"))  # for others to use: the student alone
    assert {path.name for path in (tmp_path / "final").iterdir()} == {
        "config.json", "model.safetensors", "training_args.bin",
    }  # fmt: skip
    assert make(make_model("segformer"), tmp_path, max_steps=3).train(resume_from_checkpoint=True).global_step == 3
    (tmp_path / "checkpoint-2/self_training.pt").unlink()
    with pytest.raises(ConfigError, match=r"self_training\.pt: is missing"):
        make(make_model("segformer"), tmp_path, max_steps=3).train(resume_from_checkpoint=True)


def test_under_autocast_the_teacher_asks_itself_and_is_saved_like_any_model(make_model, tmp_path):
    """accelerate binds forward to the model for mixed precision; a copy must not ask the student."""
    from transformers import AutoModelForSemanticSegmentation

    trainer = make(make_model("segformer"), tmp_path, max_steps=3, bf16=True)
    trainer.train()
    teacher, images = trainer.step.teacher.model, torch.rand(2, 3, SIZE, SIZE)
    teacher.save_pretrained(tmp_path / "teacher")
    plain = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "teacher").eval()
    same(plain, teacher)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = plain(images).logits.float()
        torch.testing.assert_close(teacher(images).logits, expected)
        student = trainer.model.eval()(images).logits
    assert float((student - expected).abs().max()) > 1e-4
    assert all(p.dtype == torch.float32 for p in teacher.parameters())


def test_teacher_and_student_are_evaluated(make_model, tmp_path):
    trainer = make(make_model("segformer"), tmp_path, trainer={"compute_metrics": accuracy}, learning_rate=0.05)
    before = trainer.evaluate()  # before training, the teacher is a copy
    assert before["eval_accuracy"] == before["eval_teacher_accuracy"]
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_size"] == after["eval_teacher_size"] == SIZE
    for model, loss in ((trainer.model, "eval_loss"), (trainer.step.teacher.model, "eval_teacher_loss")):
        batch = trainer.data_collator([trainer.eval_dataset[i] for i in range(8)])
        with torch.no_grad():
            logits = model.eval()(batch["pixel_values"]).logits
        logits = torch.nn.functional.interpolate(logits, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        expected = torch.nn.functional.cross_entropy(logits, batch["labels"], ignore_index=255)
        assert after[loss] == pytest.approx(float(expected), rel=1e-4)
    with trainer.asking_teacher():
        found = trainer.predict(trainer.eval_dataset)
    assert found.metrics["test_loss"] == pytest.approx(after["eval_teacher_loss"], rel=1e-4)
    assert found.predictions.dtype == np.int64
    trainer.evaluated = "teacher"
    assert trainer.evaluate()["eval_loss"] == pytest.approx(after["eval_teacher_loss"], rel=1e-4)
    trainer.evaluated = "both"
    several = trainer.evaluate({"a": trainer.eval_dataset, "b": trainer.eval_dataset})
    assert several["eval_b_teacher_loss"] == pytest.approx(after["eval_teacher_loss"], rel=1e-4)


def test_the_best_teacher_comes_back(make_model, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = make(
        make_model("segformer"), tmp_path, max_steps=3, learning_rate=0.3, load_best_model_at_end=True,
        metric_for_best_model="eval_teacher_loss", greater_is_better=True, **options,
    )  # fmt: skip
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    losses = [x["eval_teacher_loss"] for x in trainer.state.log_history if "eval_teacher_loss" in x]
    assert best.name == f"checkpoint-{1 + int(np.argmax(losses))}"
    assert trainer.evaluate()["eval_teacher_loss"] == pytest.approx(max(losses), rel=1e-4)


@pytest.mark.parametrize("family", ["segformer", "dpt", "upernet", "mask2former", "maskformer"])
def test_every_family_trains(make_model, tmp_path, family):
    queries = family.startswith("mask")
    recipe = {"recipe": "sense-query", "kind": "queries", "overrides": QUERIES} if queries else {}
    trainer = make(make_model(family), tmp_path, step=partial(make_step, **recipe), max_steps=2)
    before = copy.deepcopy(trainer.model)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["genaug/kept"] > 0
    assert all(np.isfinite(value) for value in first.values())
    moved = [n for (n, p), q in zip(trainer.model.named_parameters(), before.parameters(), strict=True)
             if not torch.equal(p, q)]  # fmt: skip
    assert len(moved) > 0.7 * len(list(before.parameters())), moved
    # Entries that the model's forward does not take, which a plain Trainer would drop.
    rows = [{"image": image, "mask": mask} for image, mask in trainer.eval_dataset]
    assert trainer.evaluate(rows)["eval_teacher_loss"] == trainer.evaluate()["eval_teacher_loss"] > 0


def test_a_batch_without_labels_is_told(make_model, tmp_path):
    made = make(make_model("dpt"), tmp_path)
    with pytest.raises(SampleError, match=r"a batch without 'labels', of pixel_values\. .*WithUnlabeled"):
        made.compute_loss(made.model, {"pixel_values": torch.zeros(1, 3, 32, 32)})


def test_burn_in_needs_no_unlabelled_images(make_model, tmp_path):
    recipe = {**FIXMATCH, "supervised": {"burn_in": 2}}
    labelled, _ = data()
    make(make_model("dpt"), tmp_path, step=partial(make_step, recipe=recipe), max_steps=2, dataset=labelled).train()


def test_a_trainer_of_ones_own_keeps_its_methods(make_model, tmp_path):
    class Own(Trainer):
        def create_optimizer(self, model=None):
            self.made = True
            return super().create_optimizer()

    class Both(SelfTrainingTrainer, Own):
        pass

    trainer = make(make_model("dpt"), tmp_path, kind=Both, max_steps=1)
    trainer.train()
    assert trainer.made
    assert trainer.step.updates == 1


def test_skipped_steps_of_the_optimizer_do_not_move_the_teacher(make_model, tmp_path, monkeypatch):
    trainer = make(make_model("dpt"), tmp_path, max_steps=3)
    monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", property(lambda self: True))
    trainer.train()
    assert (trainer.step.calls, trainer.step.updates) == (3, 0)


def test_what_cannot_be_combined_is_refused(make_model, tmp_path):
    model = make_model("dpt")
    with pytest.raises(ConfigError, match="compute_loss_func: the step has the loss"):
        make(model, tmp_path, trainer={"compute_loss_func": lambda *a, **k: None})
    with pytest.raises(ConfigError, match="label smoothing"):
        make(model, tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(ConfigError, match="evaluated: 'all'"):
        make(model, tmp_path, trainer={"evaluated": "all"})
    with pytest.raises(ConfigError, match="num_classes"):  # when it is made, not when it trains
        make(model, tmp_path, step=partial(SemiSupervisedStep, recipe="fixmatch", kind="logits"))


def test_the_script_of_the_page_is_short():
    """That it runs is tested with all pages (tests/docs/test_code_blocks.py)."""
    page = Path(__file__).resolve().parents[3] / "docs/how-to/transformers.md"
    script = page.read_text("utf-8").split("## A whole script")[1].split("```python\n")[1].split("```")[0]
    assert "trainer.train(" in script
    assert len(script.splitlines()) <= 60
