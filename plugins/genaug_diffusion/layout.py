"""Which text token each pixel may attend to: the layout prompt and its attention masks.

Source: the layout-to-image scheme that MatchMask builds on (rectified cross-attention, MatchMask eq. 2). Here one
rule covers any class names: every name is tokenised on its own, and each of its tokens remembers its class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional as F

from genaug.errors import ConfigError

#: Class of a token that every pixel may attend to (BOS, EOS, padding).
GLOBAL = -1

Downsample = Literal["nearest", "nearest-exact", "any"]
Overflow = Literal["drop", "chunk"]


@dataclass(frozen=True, slots=True)
class LayoutPrompt:
    """A prompt whose tokens know their class.

    Args:
        input_ids: int64 ``[chunks, T]``, each row ``[BOS] ... [EOS] [PAD]*`` with T the tokenizer's length (77).
        token_class: int64 ``[chunks * T]``: class id of the token, or `GLOBAL`.
        dropped: Class ids that did not fit, ascending. Their pixels must not supervise.
    """

    input_ids: torch.Tensor
    token_class: torch.Tensor
    dropped: tuple[int, ...] = ()


def tokenize_names(tokenizer: Any, names: Mapping[int, str]) -> dict[int, list[int]]:
    """Tokenise each class name on its own, without special tokens.

    For a CLIP tokenizer the concatenation equals tokenising the joined names, because merges never cross words.

    Raises:
        ConfigError: A name gives no token.
    """
    tokens = {i: list(tokenizer(name, add_special_tokens=False)["input_ids"]) for i, name in names.items()}
    for class_id, ids in tokens.items():
        if not ids:
            raise ConfigError(f"name {names[class_id]!r} of class {class_id} gives no token", where="labels.names")
    return tokens


def build_layout_prompt(
    tokenizer: Any,
    tokens: Mapping[int, Sequence[int]],
    areas: Mapping[int, int],
    *,
    chunks: int = 1,
) -> LayoutPrompt:
    """Concatenate the names of the classes present, in ascending id, into one or more chunks of T tokens.

    A class never straddles two chunks. When not all fit, classes are taken in order of area (largest first, smaller id
    on a tie) as long as they fit; the rest is dropped.

    Args:
        tokenizer: CLIP-like, with ``bos_token_id``, ``eos_token_id``, ``pad_token_id`` and ``model_max_length``.
        tokens: class id -> its tokens (`tokenize_names`).
        areas: class id -> pixels, of the classes to name.
        chunks: Number of rows of T tokens to fill.
    """
    length = int(tokenizer.model_max_length)
    kept = _fitting(sorted(areas, key=lambda i: (-areas[i], i)), tokens, room=length - 2, chunks=chunks)
    rows: list[list[int]] = [[] for _ in range(chunks)]
    classes: list[list[int]] = [[] for _ in range(chunks)]
    for class_id in sorted(kept):
        row = next(r for r in range(chunks) if len(rows[r]) + len(tokens[class_id]) <= length - 2)
        rows[row] += tokens[class_id]
        classes[row] += [class_id] * len(tokens[class_id])
    ids: list[list[int]] = []
    owners: list[int] = []
    for words, owner in zip(rows, classes, strict=True):
        padding = length - 2 - len(words)
        ids.append([tokenizer.bos_token_id, *words, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding])
        owners += [GLOBAL, *owner, GLOBAL, *[GLOBAL] * padding]
    dropped = tuple(sorted(set(areas) - set(kept)))
    return LayoutPrompt(torch.tensor(ids), torch.tensor(owners), dropped)


def _fitting(ranked: Sequence[int], tokens: Mapping[int, Sequence[int]], *, room: int, chunks: int) -> list[int]:
    """Return the classes that fit, first come first served, such that filling in ascending id fits too."""
    kept: list[int] = []
    for class_id in ranked:
        used = [0] * chunks
        for other in sorted([*kept, class_id]):
            row = next((r for r in range(chunks) if used[r] + len(tokens[other]) <= room), None)
            if row is None:
                break
            used[row] += len(tokens[other])
        else:
            kept.append(class_id)
    return kept


def chunks_needed(tokenizer: Any, tokens: Mapping[int, Sequence[int]]) -> int:
    """Return how many chunks hold every class of the table, whichever of them an image shows."""
    room = int(tokenizer.model_max_length) - 2
    used = [0]
    for class_id in sorted(tokens):
        size = len(tokens[class_id])
        row = next((r for r in range(len(used)) if used[r] + size <= room), None)
        if row is None:
            used.append(0)
            row = len(used) - 1
        used[row] += size
    return len(used)


def attention_sizes(latent_size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """Return the grid of every UNet level: each level halves, rounding up, as a stride-2 convolution does."""
    sizes = [latent_size]
    for _ in range(levels - 1):
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


def layout_masks(
    labels: torch.Tensor,
    token_class: torch.Tensor,
    latent_size: tuple[int, int],
    *,
    levels: int = 4,
    downsample: Downsample = "nearest",
) -> dict[str, torch.Tensor]:
    """Build the attention masks of all levels, once per mask (MatchMask eq. 2).

    Pixel ``n`` may attend to token ``j`` if the token is global or belongs to the pixel's class. The label map is
    downsampled once per level, which equals downsampling every class mask on its own.

    Args:
        labels: int64 ``[B, H, W]`` class ids; ids that no token has (255 among them) see the global tokens only.
        token_class: int64 ``[B, T]``.
        latent_size: ``(h, w)`` of the latents.
        levels: Number of UNet levels.
        downsample: ``nearest`` (default, as the released code of the layout scheme), ``nearest-exact`` (centred), or
            ``any``: a cell allows every class inside it, so no small region is lost.

    Returns:
        ``str(h * w)`` of a level -> bool ``[B, 1, h*w, T]``. A plain dict of tensors, so that pipelines, gradient
        checkpointing and ``torch.compile`` accept it.
    """
    masks: dict[str, torch.Tensor] = {}
    for h, w in attention_sizes(latent_size, levels):
        if downsample == "any":
            allowed = _any_inside(labels, token_class, (h, w))
        else:
            small = F.interpolate(labels[:, None].float(), (h, w), mode=downsample)[:, 0].long().flatten(1)
            allowed = small[:, :, None] == token_class[:, None, :]
        allowed |= (token_class == GLOBAL)[:, None, :]
        # A row without any allowed token would be NaN, zeros or a plain mean, depending on the kernel.
        allowed |= ~allowed.any(-1, keepdim=True)
        masks[str(h * w)] = allowed[:, None]
    return masks


def _any_inside(labels: torch.Tensor, token_class: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return bool ``[B, h*w, T]``: does the class of token j occur anywhere in the cell?"""
    classes, position = torch.unique(token_class, return_inverse=True)
    present = (labels[:, None] == classes[None, :, None, None]).float()
    cells = F.adaptive_max_pool2d(present, size).flatten(2).bool()  # [B, C, h*w]
    return torch.gather(cells, 1, position[:, :, None].expand(-1, -1, cells.shape[2])).transpose(1, 2)
