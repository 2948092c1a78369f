"""What processes that share a batch tell each other besides gradients."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genaug_torch.losses import Group


def wrapper_of(model: nn.Module) -> DistributedDataParallel | None:
    """Return the DistributedDataParallel that a model is, also inside ``torch.compile``; None without it."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, DistributedDataParallel) else None


def group_of(model: nn.Module) -> Group | None:
    """Return the processes of DistributedDataParallel, None without it."""
    wrapper = wrapper_of(model)
    return None if wrapper is None else wrapper.process_group


def images_before(count: int, group: Group | None, device: torch.device) -> tuple[int, int]:
    """Return how many images the processes before this one have, and how many all have; every one of them must call."""
    if group is None:
        return 0, count
    counts = torch.zeros(dist.get_world_size(group), dtype=torch.long)
    counts[dist.get_rank(group)] = count
    counts = counts.to(device)
    dist.all_reduce(counts, group=group)
    held = counts.tolist()
    return sum(held[: dist.get_rank(group)]), sum(held)


@torch.no_grad()
def share_buffers(module: nn.Module, group: Group) -> None:
    """Give every process the buffers of the first one's module, in one message; every one of them must call."""
    buffers = list(module.buffers())
    if not buffers or dist.get_world_size(group) == 1:
        return
    parts = [buffer.reshape(-1).view(torch.uint8) for buffer in buffers]  # of any type
    message = torch.cat(parts)
    dist.broadcast(message, dist.get_global_rank(group, 0), group=group)
    for buffer, part in zip(buffers, torch.split(message, [len(part) for part in parts]), strict=True):
        received: Tensor = part.clone().view(buffer.dtype)  # a copy, as types want their bytes aligned
        buffer.copy_(received.view_as(buffer))
