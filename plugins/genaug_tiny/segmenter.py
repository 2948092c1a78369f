"""A small U-Net for semantic segmentation, its training loop and its score.

It is the segmenter of the quickstart and of the benchmarks: half a minute of training on two cores is enough
to compare training sets at 64 x 64 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as weights_bytes
from torch import Tensor, nn
from tqdm.auto import tqdm

from genaug.errors import AdapterError
from genaug_tiny.segmenter_files import AGAIN, WEIGHTS_NAME, checked_config, write_segmenter


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """A U-Net with one skip per level.

    Args:
        num_classes: number of output channels K, at least 2.
        channels: channels of every level, from full resolution down; each level halves the sides.
    """

    def __init__(self, num_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a segmenter needs at least 2 classes, got num_classes={num_classes}")
        self.num_classes = num_classes
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([3, *channels[:-1]], channels, strict=True))
        self.up = nn.ModuleList(
            _block(below + here, here) for below, here in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            images: [B, 3, H, W] float in [0, 1], any H and W.

        Returns:
            Logits [B, K, H, W] float.
        """
        height, width = images.shape[-2:]
        # Padded inside to what the halvings need, so that callers never have to.
        multiple = 2 ** len(self.up)
        x = F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate") * 2 - 1
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skips.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]


class SmallUNet(UNet):
    """A four-level U-Net of about 0.4 M parameters at the default width.

    Args:
        num_classes: number of output channels K, at least 2.
        width: channels at full resolution; the parameters grow with its square.
    """

    def __init__(self, num_classes: int, *, width: int = 12) -> None:
        if width < 1:
            raise ValueError(f"width must be positive, got {width}")
        # Narrow at full resolution, where a channel costs most time, and wide below.
        super().__init__(num_classes, [width, 8 * width // 3, 16 * width // 3, 8 * width])
        self.width = width


def train_segmenter(
    images: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.integer],
    *,
    num_classes: int,
    ignore_index: int = 255,
    steps: int = 400,
    batch_size: int = 16,
    lr: float = 4e-3,
    seed: int = 0,
    sample_weights: npt.NDArray[np.floating] | None = None,
    augment: bool = True,
    width: int = 12,
    progress: bool = True,
) -> SmallUNet:
    """Train a fresh segmenter; the same arguments give the same weights on the same machine.

    Args:
        images: [N, H, W, 3] uint8 RGB.
        masks: [N, H, W] integer class ids below `num_classes`, or `ignore_index`.
        num_classes: number of classes K.
        ignore_index: id of the pixels that the loss leaves out.
        steps: optimiser steps.
        batch_size: samples a step, drawn with replacement.
        lr: peak learning rate of AdamW under a one-cycle cosine.
        seed: seed of the initial weights, the draws and the augmentation.
        sample_weights: [N] non-negative, how often each sample is drawn relative to the others.
        augment: random flips, zooms and crops, and light colour jitter.
        width: see `SmallUNet`.
        progress: show a progress bar.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        ValueError: if shapes, dtypes, ids or weights do not fit together.
    """
    _check_pair(images, masks, num_classes, ignore_index)
    draw_weights = _draw_weights(sample_weights, len(images))
    generator = torch.Generator().manual_seed(seed)
    x_all, y_all = torch.from_numpy(images), torch.from_numpy(masks.astype(np.int64))
    class_weights = _class_weights(y_all, num_classes, ignore_index)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(steps):
            rows = torch.multinomial(draw_weights, batch_size, replacement=True, generator=generator)
            x = x_all[rows].permute(0, 3, 1, 2).float() / 255
            yield augmented(x, y_all[rows], generator) if augment else (x, y_all[rows])

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, weight=class_weights, ignore_index=ignore_index)

    return fit(
        batches(), loss, num_classes=num_classes, ignore_index=ignore_index, steps=steps, lr=lr, seed=seed,
        width=width, progress=progress,
    )  # fmt: skip


def fit(
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    num_classes: int,
    ignore_index: int = 255,
    steps: int,
    lr: float = 4e-3,
    seed: int = 0,
    width: int = 12,
    progress: bool = True,
) -> SmallUNet:
    """Train a fresh segmenter on batches from anywhere.

    Args:
        batches: `steps` pairs of images [B, 3, H, W] float in [0, 1] and masks [B, H, W] int64. One without a single
            labelled pixel is passed over.
        loss: Logits [B, K, H, W] float32 and masks to one number.
        num_classes: number of classes K.
        ignore_index: id of unlabelled pixels.
        steps: optimiser steps.
        lr: peak learning rate of AdamW under a one-cycle cosine.
        seed: seed of the initial weights.
        width: see `SmallUNet`.
        progress: show a progress bar.

    Returns:
        The model in eval mode, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        # Layer initialisation can only use the global stream; fork_rng gives it back untouched.
        torch.manual_seed(seed)
        model = SmallUNet(num_classes, width=width)
    # channels_last is the faster layout for small convolutions on CPUs.
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    fast_bfloat16 = has_fast_bfloat16()
    shown = tqdm(batches, total=steps, desc="train segmenter", leave=False) if progress else batches
    for step, (x, y) in enumerate(shown):
        optimiser.param_groups[0]["lr"] = lr * one_cycle(step / steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16):
            logits = model(x.contiguous(memory_format=torch.channels_last)).float()
        if bool((y != ignore_index).any()):  # the mean over no pixel at all would be NaN
            optimiser.zero_grad(set_to_none=True)
            loss(logits, y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    model.eval()
    return model


def one_cycle(share: float, *, rise: float = 0.2) -> float:
    """Learning-rate factor at a share in [0, 1) of the training: a cosine up, then a longer one down to zero."""
    phase = share / rise - 1 if share < rise else (share - rise) / (1 - rise)
    return 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * phase))


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AMX, AVX512-BF16), where it halves a step's time."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("amx_tile", "amx_bf16", "avx512_bf16"))


def _check_pair(
    images: npt.NDArray[np.uint8], masks: npt.NDArray[np.integer], num_classes: int, ignore_index: int
) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 [N, H, W, 3], got {images.dtype} {images.shape}")
    if masks.shape != images.shape[:3] or not np.issubdtype(masks.dtype, np.integer):
        raise ValueError(f"masks must be integers {images.shape[:3]} like the images, got {masks.dtype} {masks.shape}")
    if not len(images):
        raise ValueError("there is no sample to work on: images is empty")
    ids = np.unique(masks)
    strange = ids[(ids != ignore_index) & ((ids < 0) | (ids >= num_classes))]
    if len(strange):
        raise ValueError(f"masks hold ids {strange.tolist()} outside 0..{num_classes - 1} and not {ignore_index}")


def _class_weights(masks: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Weights [K] that fall with the square root of a class's share, so small things are not drowned out."""
    counts = torch.bincount(masks[masks != ignore_index], minlength=num_classes).float()
    share = (counts / counts.sum().clamp(min=1)).clamp(min=1e-3)
    weights = share.rsqrt()
    return weights / (weights * share).sum().clamp(min=1e-6)  # the mean weight of a pixel stays 1


def _draw_weights(sample_weights: npt.NDArray[np.floating] | None, count: int) -> Tensor:
    if sample_weights is None:
        return torch.ones(count)
    weights = torch.as_tensor(np.asarray(sample_weights, dtype=np.float32))
    if weights.shape != (count,) or not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise ValueError(
            f"sample_weights must be {count} finite non-negative numbers, got shape {tuple(weights.shape)}"
        )
    if not bool(weights.sum() > 0):
        raise ValueError("sample_weights are all zero: no sample could be drawn")
    return weights


def _uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def random_geometry(images: Tensor, masks: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Flip, zoom and crop images [B, 3, H, W] and, if given, their masks [B, H, W] int64 alike."""
    count = len(images)
    flip = torch.where(_uniform(0, 1, count, generator=generator) < 0.5, -1.0, 1.0)
    # Below 1 zooms in; above 1 the scene is mirrored at its border.
    span = torch.exp(_uniform(-0.6, 0.15, count, generator=generator))
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = flip * span, span
    theta[:, :, 2] = _uniform(-1, 1, count, 2, generator=generator) * (1 - span).abs()[:, None]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    if masks is None:
        return images, None
    # Nearest keeps ids intact, and float32 holds every id exactly.
    moved = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return images, moved[:, 0].round().long()


def augmented(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, zoom, crop and recolour images [B, 3, H, W] in [0, 1]; their masks [B, H, W] int64 move alike."""
    moved, labels = random_geometry(images, masks, generator)
    return _recolour(moved, generator), masks if labels is None else labels


def _recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change the colours of images [B, 3, H, W] in [0, 1] a little."""
    count = len(images)
    gain = _uniform(0.8, 1.2, count, 3, 1, 1, generator=generator)
    gain = gain * _uniform(0.85, 1.15, count, 1, 1, 1, generator=generator)
    return (images * gain + _uniform(-0.06, 0.06, count, 1, 1, 1, generator=generator)).clamp(0, 1)


@torch.no_grad()
def evaluate_miou(
    model: nn.Module,
    images: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.integer],
    num_classes: int,
    ignore_index: int = 255,
    *,
    batch_size: int = 64,
) -> tuple[float, npt.NDArray[np.float64]]:
    """Mean intersection over union of a model over a whole set (one confusion matrix, not a mean of images).

    Args:
        model: images [B, 3, H, W] float in [0, 1] to logits [B, K, H, W].
        images: [N, H, W, 3] uint8 RGB.
        masks: [N, H, W] integer class ids or `ignore_index`.
        num_classes: number of classes K.
        ignore_index: id of the pixels that do not count.
        batch_size: images a forward pass.

    Returns:
        mIoU in [0, 1] over the classes that occur in masks or predictions, and IoU [K] float64 with NaN for
        classes that occur in neither.
    """
    _check_pair(images, masks, num_classes, ignore_index)
    was_training = model.training
    model.eval()
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for start in range(0, len(images), batch_size):
        x = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2).float() / 255
        predicted = model(x).argmax(1).numpy()
        truth = masks[start : start + batch_size].astype(np.int64)
        valid = truth != ignore_index
        pairs = truth[valid] * num_classes + predicted[valid]
        confusion += np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    model.train(was_training)
    hit = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hit
    iou = np.divide(hit, union, out=np.full(num_classes, np.nan), where=union > 0)
    return (float(np.nanmean(iou)) if (union > 0).any() else float("nan")), iou


def save(model: SmallUNet, folder: Path) -> None:
    """Write a segmenter to a folder: safetensors weights, and a JSON file with their hash and the model's two numbers.

    Raises:
        StoreError: The operating system refused; no file is half-written.
    """
    weights = weights_bytes({key: value.contiguous() for key, value in model.state_dict().items()})
    write_segmenter(Path(folder), weights, num_classes=model.num_classes, width=model.width)


def load(folder: Path) -> SmallUNet:
    """Read a segmenter that `save` wrote; its outputs are bit-equal to the saved model's. In eval mode.

    Raises:
        AdapterError: A file is missing or damaged.
    """
    folder = Path(folder)
    config = checked_config(folder)
    model = SmallUNet(config["num_classes"], width=config["width"])
    try:
        model.load_state_dict(load_file(folder / WEIGHTS_NAME))
    except (SafetensorError, RuntimeError) as error:  # load_state_dict's own error for tensors that do not fit
        where = str(folder / WEIGHTS_NAME)
        raise AdapterError(f"damaged: cannot be read ({error})", where=where, hint=AGAIN) from error
    return model.eval()
