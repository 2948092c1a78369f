"""Run by test_step_buffers.py under torchrun: the buffers that the teachers of two processes label with.

Argument: the file to write. Found once with DistributedDataParallel's buffers ``shared``, once with each process's
``own``.
"""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from genaug_torch import SemiSupervisedStep


def take_steps(shared):
    """Return the buffers that every process's teacher had at each of its calls, and the batch that the step records."""
    rank = dist.get_rank()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    student = DistributedDataParallel(net, broadcast_buffers=shared)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    step = SemiSupervisedStep(student, "fixmatch", kind="logits", num_classes=3, overrides=["views.strong=builtin"])
    seen = []
    step.teacher.model.register_forward_hook(
        lambda module, *_: seen.append([value.clone() for value in module.buffers()])
    )
    generator = torch.Generator().manual_seed(rank)
    for _ in range(3):
        images, unlabelled = (torch.rand(2, 3, 8, 8, generator=generator) for _ in range(2))
        optimizer.zero_grad()
        loss, _ = step(images, torch.randint(3, (2, 8, 8), generator=generator), unlabelled)
        loss.backward()
        optimizer.step()
        step.update()
    everybody = [None, None]
    dist.all_gather_object(everybody, seen)
    return {"seen": everybody, "batch": step.state_dict()["batch"]}


def main():
    dist.init_process_group("gloo")
    found = {"shared": take_steps(shared=True), "own": take_steps(shared=False)}
    if dist.get_rank() == 0:
        torch.save(found, sys.argv[1])
    dist.barrier()
    os._exit(0)  # as in distributed_step.py


if __name__ == "__main__":
    main()
