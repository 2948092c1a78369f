"""Two processes under DistributedDataParallel: one teacher, one student, and checkpoints that both go on from."""

import json
import multiprocessing
import os
import socket
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset
from transformers import TrainingArguments

from genaug_torch import SemiSupervisedStep
from genaug_transformers import SegmentationCollator, SelfTrainingTrainer, WithUnlabeled

K, SIZE = 3, 32
RECIPE = {"extends": "fixmatch", "labeler": {"use": "threshold", "threshold": 0.2}, "views": {"strong": "builtin"}}


def train(model, out, checkpoint=None):
    """Train on data of a fixed seed, and return the trainer."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(14, 3, SIZE, SIZE, generator=generator)
    labelled = TensorDataset(images[:8], torch.randint(K, (8, SIZE, SIZE), generator=generator))
    arguments = TrainingArguments(
        str(out), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=3, save_strategy="steps",
        save_steps=2, learning_rate=1e-3, use_cpu=True, report_to=[], disable_tqdm=True, ddp_backend="gloo",
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SelfTrainingTrainer(
        model, arguments, step=partial(SemiSupervisedStep, recipe=RECIPE, kind="logits", num_classes=K),
        train_dataset=WithUnlabeled(labelled, images[8:]), data_collator=SegmentationCollator(),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def weights(trainer):
    models = (trainer.model, trainer.step.teacher.model)
    return [float(parameter.detach().double().abs().sum()) for model in models for parameter in model.parameters()]


def process(rank, port, make, folder):
    """What one of the two processes does; forked, because another import of everything would take half a minute."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # that of the parent, which is alone
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    whole = train(make("upernet"), folder / "out")
    again = train(make("upernet"), folder / "out", str(folder / "out/checkpoint-2"))
    said = {
        "wrapper": type(whole.model_wrapped).__name__, "batch": whole.step.batch, "updates": whole.step.updates,
        "weights": weights(whole), "again": weights(again),
    }  # fmt: skip
    (folder / f"{rank}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(200)
@pytest.mark.filterwarnings("ignore:Grad strides do not match:UserWarning")
def test_two_processes_train_one_student_and_one_teacher(make_model, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=process, args=(rank, port, make_model, tmp_path)) for rank in range(2)]
    for child in started:
        child.start()
    for child in started:
        child.join(150)
    for child in started:
        if child.is_alive():
            child.kill()
    assert [child.exitcode for child in started] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["wrapper"] == "DistributedDataParallel"
    assert (first["batch"], first["updates"]) == ({"processes": 2, "unlabeled": 4}, 3)
    assert first["weights"] == first["again"]
