"""A base model for CamVid: genaug-tiny, trained on with training images and class-list prompts, no masks.

    nice -n 19 python benchmarks/camvid_base.py --data CAMVID --run-dir RUNS --out RUNS/base --resume

Of the 367 training images those of the held-out blocks of time (and the 3 s before them) are left out: a base model
that has seen the test images would flatter every synthetic arm. A mask is only read to list the classes that an image,
or one of twelve small views of it, shows; the list is the prompt. The small views are needed: nearly every whole frame
shows nearly every class, so from whole frames alone no word could get a meaning. The text encoder is new (every class
name is one token); the UNet and the decoder start from genaug-tiny. Every stage is skipped when its result is there.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from camvid_data import blocks, read
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import nn
from train_tiny import Denoiser, random_crops, shipped
from training import Ema, loop, save_atomic, step_generator

from genaug import LabelSpace
from genaug_diffusion.images import resize_image
from genaug_tiny.architecture import build_scheduler, build_text_encoder, build_tokenizer
from genaug_tiny.short_attention import ShortAttention
from genaug_tiny.weights import model_folder

#: Height and width of the model's images: the multiples of 8 nearest to 90x120 at its aspect.
SIZE = (96, 128)
#: Upper left corners of the small views of 32 x 32 pixels.
CORNERS = ((0, 32, 64), (0, 32, 64, 96))


def fingerprint(base: Path) -> str:
    """Return what tells a base from one that was trained anew under the same name."""
    return hashlib.sha256((base / "unet/diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()[:8]


def words() -> list[str]:
    """Return one word per class; "sign symbol" becomes one word so that every class is one token."""
    return [name.replace(" ", "") for name in LabelSpace.from_config("camvid11").names.values()]


def main() -> None:
    """Parse the command line and run the stages in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CamVid folder")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder for caches and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder for the exported pipeline")
    parser.add_argument("--steps", type=int, default=2500, help="UNet steps")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--vae-steps", type=int, default=400)
    parser.add_argument("--vae-batch", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    for stage in (encode, train_unet, train_decoder, export):
        started = time.time()
        stage(args)
        print(f"{stage.__name__}: {time.time() - started:.0f} s", flush=True)


@torch.no_grad()
def encode(args: argparse.Namespace) -> None:
    """Cache images, their mirror images, latents and prompts (which classes cover 1 % or more)."""
    if (args.run_dir / "latents.pt").exists():
        return
    frames = read(args.data)
    near, held_out = blocks(frames)
    frames = frames.pick([s for s in frames.stems if s not in near | held_out])
    images = np.stack([resize_image(image, SIZE) for image in frames.images])
    reduced = [Image.fromarray(mask).resize(SIZE[::-1], Image.Resampling.NEAREST) for mask in frames.masks]
    masks = np.stack([np.asarray(mask) for mask in reduced])
    images, masks = (np.concatenate([each, each[:, :, ::-1]]) for each in (images, masks))
    present = shown(masks, 0.01)
    rows, columns = CORNERS
    views = [[shown(masks[:, y : y + 32, x : x + 32], 0.02) for x in columns] for y in rows]
    crops = torch.stack([torch.stack(row, 1) for row in views], 1)
    vae, parts = shipped(model_folder()).vae.eval(), []
    for first in range(0, len(images), 32):
        x = torch.from_numpy(images[first : first + 32].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(vae.encode(x).latent_dist.mean)
    np.save(args.run_dir / "images.npy", images)
    save_atomic({"latents": torch.cat(parts), "present": present, "crops": crops}, args.run_dir / "latents.pt")


def shown(masks: np.ndarray, share: float) -> torch.Tensor:
    """Return which classes cover at least `share` of each mask: bool [N, K]."""
    return torch.from_numpy(np.stack([(masks == c).mean((1, 2)) >= share for c in range(len(words()))], 1))


def train_unet(args: argparse.Namespace) -> None:
    """Denoise under class-list prompts, as genaug-tiny was trained."""
    if (args.run_dir / "unet.pt").exists():
        return
    pipe, cache = shipped(model_folder()), torch.load(args.run_dir / "latents.pt", weights_only=True)
    latents = (cache["latents"] * pipe.vae.config.scaling_factor).to(args.device)
    present, crops = cache["present"].to(args.device), cache["crops"].to(args.device)
    torch.manual_seed(0)
    tokenizer = build_tokenizer(words())
    text, unet = build_text_encoder(tokenizer).train(), pipe.unet.train()
    unet.set_attn_processor(ShortAttention())
    unet.to(args.device), text.to(args.device)
    denoise = Denoiser(unet, text, tokenizer, words())
    parameters = [p for module in (unet, text) for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    for step, finish in loop("unet", args, [unet, text], optimiser, ema := Ema(parameters), args.steps, 100):
        generator = step_generator(0, step, args.device)
        if step % 2:
            x, named = random_crops(latents, crops, 8 * args.batch, generator)
        else:
            rows = torch.randint(len(latents), (args.batch,), generator=generator, device=args.device)
            x, named = latents[rows], present[rows]
        loss, error = denoise(x, named, generator)
        loss.backward()
        finish(error)
    for parameter, average in zip(parameters, ema.shadow, strict=True):
        parameter.data.copy_(average)
    save_atomic({"unet": unet.state_dict(), "text": text.state_dict()}, args.run_dir / "unet.pt")


def train_decoder(args: argparse.Namespace) -> None:
    """Train genaug-tiny's decoder on with these images; the latents stay as they are."""
    if (args.run_dir / "vae.pt").exists():
        return
    images = np.load(args.run_dir / "images.npy", mmap_mode="r")
    latents, vae = torch.load(args.run_dir / "latents.pt", weights_only=True)["latents"], shipped(model_folder()).vae
    decoder = nn.ModuleList([vae.post_quant_conv, vae.decoder]).to(args.device).train()
    parameters = list(decoder.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    for step, finish in loop("vae", args, [decoder], optimiser, ema := Ema(parameters, 0.99), args.vae_steps, 30):
        rows = torch.randint(len(images), (args.vae_batch,), generator=step_generator(1, step))
        x = torch.from_numpy(images[rows.numpy()]).to(args.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast(args.device, torch.bfloat16):
            y = decoder[1](decoder[0](latents[rows].to(args.device))).float()
        edges = (y.diff(dim=2) - x.diff(dim=2)).abs().mean() + (y.diff(dim=3) - x.diff(dim=3)).abs().mean()
        loss = (y - x).abs().mean() + 0.25 * edges
        loss.backward()
        finish(loss.detach())
    for parameter, average in zip(parameters, ema.shadow, strict=True):
        parameter.data.copy_(average)
    save_atomic(vae.state_dict(), args.run_dir / "vae.pt")


def export(args: argparse.Namespace) -> None:
    """Write the pipeline in diffusers format."""
    pipe, weights = shipped(model_folder()), torch.load(args.run_dir / "unet.pt", weights_only=True, map_location="cpu")
    tokenizer = build_tokenizer(words())
    text = build_text_encoder(tokenizer)
    text.load_state_dict(weights["text"])
    pipe.unet.load_state_dict(weights["unet"])
    pipe.vae.load_state_dict(torch.load(args.run_dir / "vae.pt", weights_only=True, map_location="cpu"))
    StableDiffusionPipeline(
        vae=pipe.vae, unet=pipe.unet, text_encoder=text, tokenizer=tokenizer, scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(args.out, safe_serialization=True)  # fmt: skip


if __name__ == "__main__":
    main()
