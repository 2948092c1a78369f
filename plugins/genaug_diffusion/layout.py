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


def tokenize_names(tokenizer: Any, names: Mapping[int, str], *, length: int = 77) -> dict[int, list[int]]:
    """Tokenise each class name on its own, without special tokens.

    For a CLIP tokenizer the concatenation equals tokenising the joined names, because merges never cross words.

    Raises:
        ConfigError: A name gives no token, or more than the ``length - 2`` that fit between start and end.
    """
    tokens = {i: list(tokenizer(name, add_special_tokens=False)["input_ids"]) for i, name in names.items()}
    for class_id, ids in tokens.items():
        if not ids:
            raise ConfigError(f"name {names[class_id]!r} of class {class_id} gives no token", where="labels.names")
        if len(ids) > length - 2:
            found = f"name {names[class_id]!r} of class {class_id} has {len(ids)} tokens"
            raise ConfigError(found, where="labels.names", allowed=f"at most {length - 2}")
    return tokens


def build_layout_prompt(
    tokenizer: Any,
    tokens: Mapping[int, Sequence[int]],
    areas: Mapping[int, int],
    *,
    length: int = 77,
    chunk_of: Mapping[int, int] | None = None,
) -> LayoutPrompt:
    """Concatenate the names of the classes present, in ascending id, into one or more chunks of T tokens.

    In a single chunk not all may fit: classes are taken in order of area (largest first, smaller id on a tie) as long
    as they fit; the rest is dropped.

    Args:
        tokenizer: CLIP-like, with ``bos_token_id``, ``eos_token_id`` and ``pad_token_id``.
        tokens: class id -> its tokens (`tokenize_names`).
        areas: class id -> pixels, of the classes to name.
        length: T, tokens per chunk.
        chunk_of: class id -> its chunk (`assign_chunks`), so that nothing is dropped; None for a single chunk.
    """
    ranked = sorted(areas, key=lambda i: (-areas[i], i))
    kept = _fitting(ranked, tokens, room=length - 2) if chunk_of is None else ranked
    chunks = 1 if chunk_of is None else max(chunk_of.values(), default=0) + 1
    rows: list[list[int]] = [[] for _ in range(chunks)]
    classes: list[list[int]] = [[] for _ in range(chunks)]
    for class_id in sorted(kept):
        row = 0 if chunk_of is None else chunk_of[class_id]
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


def _fitting(ranked: Sequence[int], tokens: Mapping[int, Sequence[int]], *, room: int) -> list[int]:
    """Return the classes that fit into one chunk, first come first served."""
    kept: list[int] = []
    for class_id in ranked:
        if len(tokens[class_id]) <= room:
            kept.append(class_id)
            room -= len(tokens[class_id])
    return kept


def assign_chunks(tokens: Mapping[int, Sequence[int]], *, length: int = 77) -> dict[int, int]:
    """Give every class of the table a chunk for good, first fit in ascending id.

    Fixed places are what makes every subset of the classes fit, and every prompt of a run equally long.
    """
    used: list[int] = []
    places: dict[int, int] = {}
    for class_id in sorted(tokens):
        size = len(tokens[class_id])
        place = next((c for c, count in enumerate(used) if count + size <= length - 2), len(used))
        if place == len(used):
            used.append(0)
        used[place] += size
        places[class_id] = place
    return places


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
        labels: integer ``[B, H, W]`` class ids; ids that no token has (255 among them) see the global tokens only.
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
    present = (labels.long()[:, None] == classes[None, :, None, None]).float()
    cells = F.adaptive_max_pool2d(present, size).flatten(2).bool()  # [B, C, h*w]
    return torch.gather(cells, 1, position[:, :, None].expand(-1, -1, cells.shape[2])).transpose(1, 2)
