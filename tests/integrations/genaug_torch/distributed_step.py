"""Run by test_step_distributed.py under torchrun: two steps of each recipe on this process's share of a fixed batch.

Arguments: the file to write; JSON of names -> recipe and kind of labels, ``masks`` or ``scribbles``.
"""

import json
import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from genaug_torch import SemiSupervisedStep

K = 3
#: Labelled and unlabelled samples of each process.
SHARES = {1: [(slice(0, 5), slice(0, 5))], 2: [(slice(0, 1), slice(0, 2)), (slice(1, 5), slice(2, 5))]}


class Student(nn.Module):
    """Sure of bright images only: the first unlabelled one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, K, 1))
        self.sure = nn.Parameter(torch.tensor([9.0, 0.0, 0.0]).view(1, K, 1, 1))

    def forward(self, images):
        return 0.1 * self.body(images) + (images.amin((1, 2, 3), keepdim=True) > 0.5) * self.sure


class QueryStudent(nn.Module):
    """The same with a query for every class."""

    def __init__(self):
        super().__init__()
        self.dense = Student()
        self.dense.sure.data[:, 1:] = -9.0
        self.classes = nn.Parameter(6 * torch.eye(K, K + 1))

    def forward(self, images):
        return self.classes.expand(len(images), -1, -1), self.dense(images)


def smoothness(seen):
    alike = (-(seen.images[..., 1:] - seen.images[..., :-1]).square().sum(1)).exp()
    probs = seen.predictions.probs()
    return (alike * (probs[..., 1:] - probs[..., :-1]).square().sum(1)).sum((1, 2)).mean()


def sureness(seen):
    return seen.predictions.entropy().mean()


def take_steps(recipe, kind):
    """Return gradients, teacher and the kept images of all processes after two steps."""
    rank, world = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(0)
    images, unlabelled = (torch.rand(5, 3, 8, 8, generator=generator) for _ in range(2))
    unlabelled = unlabelled * 0.5
    unlabelled[0] += 0.5
    labels = torch.randint(K, (5, 8, 8), generator=generator)
    labels[3:, :4] = 255
    more = {}
    if kind == "scribbles":
        labels[:, :, :6] = labels[:, 1:] = 255  # two pixels of each image
        labels[1:] = 255  # and of the first image only: of the first process
        more["regularizers"] = {"smooth": (2.0, smoothness), "sure": sureness}
    own, other = SHARES[world][rank]
    queries = recipe.get("supervised", {}).get("loss") == "set"
    student = DistributedDataParallel(QueryStudent() if queries else Student())
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    step = SemiSupervisedStep(student, recipe, kind="queries" if queries else "logits", num_classes=K, **more)
    for number in range(2):
        optimizer.zero_grad()
        backward = torch.Tensor.backward if number else None  # both ways, one after the other
        loss, _ = step(images[own], labels[own], unlabelled[other], backward=backward)
        if backward is None:
            loss.backward()
        if number == 0:
            optimizer.step()
            step.update()
    confidence = step.read(step.teacher(unlabelled[other]), (8, 8)).confidence()[0].amax((1, 2)) >= 0.9
    kept = [None] * world
    dist.all_gather_object(kept, confidence.tolist())
    gradients = [p.grad for p in student.parameters()]
    teacher = list(step.teacher.model.parameters())
    return {"gradients": gradients, "teacher": teacher, "kept": kept}


def main():
    dist.init_process_group("gloo")
    torch.set_default_dtype(torch.float64)
    found = {name: take_steps(recipe, kind) for name, (recipe, kind) in json.loads(sys.argv[2]).items()}
    if dist.get_rank() == 0:
        torch.save(found, sys.argv[1])
    dist.barrier()
    # DDP keeps the group's gloo threads alive even after destroy_process_group (torch 2.13), and a thread that frees a
    # Python tensor while the interpreter shuts down aborts the process now and then. All is written: leave at once.
    os._exit(0)


if __name__ == "__main__":
    main()
