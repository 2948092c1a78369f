"""The page's script under Lightning, and a fit that goes on from a checkpoint; skipped where Lightning is absent."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from genaug.errors import ConfigError
from genaug_torch import SemiSupervisedStep

pytest.importorskip("lightning")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(200)]
PAGE = Path(__file__).parents[3] / "docs/how-to/lightning.md"
STEP = partial(SemiSupervisedStep, recipe="mean-teacher", kind="logits", num_classes=3, overrides=["teacher.ema=0.9"])


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.M | re.S)
    names = {"__name__": "__main__"}
    exec(compile(code, "lightning.md", "exec"), names)
    trainer = names["trainer"]
    assert trainer.callbacks[0].step.updates == trainer.global_step == 4
    assert {"kept", "teacher_loss"} <= set(trainer.callback_metrics)


def fit(folder, epochs, checkpoint=None, **options):
    import lightning as L

    from genaug_torch.lightning import SelfTraining

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Conv2d(3, 3, 3, padding=1)

        def training_step(self, batch, index):
            return self.self_training(batch[0], batch[1], batch[2])[0]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 4, 3, 8, 8, generator=generator)
    labels = torch.randint(3, (4, 8, 8), generator=generator)
    module, callback = Module(), SelfTraining(STEP, student=options.pop("student", "net"))
    trainer = L.Trainer(
        max_epochs=epochs, callbacks=[callback], logger=False, enable_progress_bar=False, accelerator="cpu",
        default_root_dir=folder, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(images[0], labels, images[1]), batch_size=2), ckpt_path=checkpoint)
    return module, callback.step, trainer


def test_a_fit_that_goes_on_is_the_one_that_never_stopped(tmp_path):
    whole, step, _ = fit(tmp_path / "whole", 3)
    _, _, trainer = fit(tmp_path / "part", 2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    again, other, _ = fit(tmp_path / "part", 3, tmp_path / "two.ckpt")
    assert (step.calls, step.updates) == (other.calls, other.updates) == (6, 6)
    for one, two in ((whole.net, again.net), (step.teacher.model, other.teacher.model)):
        for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert not torch.equal(whole.net.weight, step.teacher.model.weight)


def test_the_teacher_follows_the_optimizer_not_the_batches(tmp_path):
    _, step, trainer = fit(tmp_path, 2, accumulate_grad_batches=2)
    assert (step.calls, step.updates, trainer.global_step) == (4, 2, 2)


def test_a_module_without_the_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no model 'head'"):
        fit(tmp_path, 1, student="head")
