"""Sinkhorn in slow and obvious forms, and predictions to try it on."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

BETA = 0.05
shapes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.integers(1, 12))


def log_probs_of(seed: int, shape: tuple[int, ...], std: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    logits = std * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.log_softmax(1).to(dtype)


def teacher(seed: int, classes: int, present: int, size: int = 48, images: int = 2) -> Tensor:
    """Simulate log-probabilities: smooth regions of mostly confident pixels, absent classes, one beyond float32."""
    draw = torch.Generator().manual_seed(seed)

    def noise(channels: int, grid: int) -> Tensor:
        made = torch.randn(images, channels, grid, grid, generator=draw)
        return torch.nn.functional.interpolate(made, size=(size, size), mode="bilinear")

    regions = noise(present, 5).argmax(1, keepdim=True)
    logits = 0.5 * noise(classes, size) + 1.5 * noise(classes, 8)
    logits[:, present:] -= 4
    logits[:, -1] -= 12
    return logits.scatter_add(1, regions, 8 + 4 * noise(1, 6)).log_softmax(1)


def rows(values: Tensor) -> Tensor:
    """``[B, K, H, W]`` as one row a pixel, ``[n, K]``."""
    return values.movedim(1, -1).reshape(-1, values.shape[1])


def loops(log_probs: Tensor, iterations: int, beta: float) -> Tensor:
    """Sinkhorn, number by number."""
    n, K = log_probs.shape
    M = [[float(log_probs[i, j]) / beta for j in range(K)] for i in range(n)]
    f, g = [0.0] * n, [0.0] * K
    for _ in range(iterations):
        for j in range(K):
            top = max(M[i][j] + f[i] for i in range(n))
            g[j] = math.log(1 / K) - top - math.log(sum(math.exp(M[i][j] + f[i] - top) for i in range(n)))
        for i in range(n):
            top = max(M[i][j] + g[j] for j in range(K))
            f[i] = math.log(1 / n) - top - math.log(sum(math.exp(M[i][j] + g[j] - top) for j in range(K)))
    return torch.tensor([[n * math.exp(M[i][j] + f[i] + g[j]) for j in range(K)] for i in range(n)])


def reference(
    log_probs: Tensor,
    valid: Tensor,
    *,
    iterations: int = 3,
    beta: float = BETA,
    support: str = "exact",
    min_pixels: int = 1,
    marginal: Tensor | None = None,
) -> Tensor:
    """The same in the log domain and float64, with the supports as the specification words them: all rows' targets."""
    M, inside = rows(log_probs).double() / beta, valid.flatten()
    b = torch.ones(M.shape[1], dtype=torch.float64) if marginal is None else marginal.double()
    if support == "fp32":
        M = M.masked_fill(M - M[inside].flatten().logsumexp(0) < -103.97, -torch.inf)
    if support == "present":
        best = M[inside] == M[inside].amax(1, keepdim=True)
        M = M.masked_fill((best.sum(0) < min_pixels).unsqueeze(0), -torch.inf)
    part = M[inside]
    f = torch.zeros(len(part), dtype=torch.float64)
    for _ in range(iterations):
        column = (part + f.unsqueeze(1)).logsumexp(0)
        g = torch.where(torch.isfinite(column), b.log() - column, -torch.inf)
        f = -(part + g).logsumexp(1)
        f = torch.where(torch.isfinite(f), f, -torch.inf)
    return (M + g).softmax(1)


def released(log_probs: Tensor, iterations: int = 3, beta: float = BETA) -> Tensor:
    """The released procedure in float32: exponentiate, then scale columns and rows in place."""
    plan = torch.exp(rows(log_probs).float() / beta)
    n, K = plan.shape
    plan /= plan.sum()
    for _ in range(iterations):
        column = plan.sum(0, keepdim=True)
        plan /= torch.where(column == 0, 1e-5, column)
        plan /= K
        plan /= plan.sum(1, keepdim=True)
        plan /= n
    return plan * n
