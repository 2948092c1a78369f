"""Train genaug-tiny from nothing: render scenes, fix the latent space, train UNet and decoder, export.

    nice -n 19 python benchmarks/train_tiny.py --run-dir RUNS --out plugins/genaug_tiny/model

Every stage writes its result with write-then-rename and is skipped when that result is there; `--resume` also
continues a VAE or UNet training from its last checkpoint. All randomness of a step follows from (seed, step), so
a resumed run takes exactly the steps that an uninterrupted one would have taken. No mask ever enters the
training: a scene's mask is only used to list the classes that are visible, which makes the prompt.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from tqdm.auto import tqdm
from training import Ema, loop, save_atomic, step_generator

from genaug_tiny.architecture import (
    LATENT_CHANNELS,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    build_vae,
    set_linear_encoder,
)
from genaug_tiny.scenes import CLASSES, EVALUATION_SEEDS, PRETRAINING_SEEDS, class_prompt, render_scene
from genaug_tiny.short_attention import ShortAttention, prompt_keys

CORNERS = (0, 16, 32)  # of the half-size views, in pixels


def main() -> None:
    """Parse the command line and run the stages in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True, help="folder for caches and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder for the exported pipeline")
    parser.add_argument("--stages", nargs="+", default=["render", "latents", "unet", "vae", "export"])
    parser.add_argument("--scenes", type=int, default=30_000)
    parser.add_argument("--vae-steps", type=int, default=1800)
    parser.add_argument("--vae-batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3600, help="UNet steps")
    parser.add_argument("--batch", type=int, default=32, help="UNet batch")
    parser.add_argument("--plain-steps", type=int, default=0, help="first UNet steps without crops, min-SNR-5")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1, help="two are slower than one on a busy machine")
    parser.add_argument("--device", default="cpu", help="cuda: a batch of 256 and 40,000 steps take minutes there")
    parser.add_argument("--init-from", type=Path, help="exported pipeline whose UNet, text encoder and VAE to train on")
    parser.add_argument("--seed", type=int, default=PRETRAINING_SEEDS.start, help="first scene seed")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    seeds = range(args.seed, args.seed + args.scenes)
    assert seeds.start in PRETRAINING_SEEDS, "not pretraining seeds"
    assert seeds.stop <= PRETRAINING_SEEDS.stop, "not pretraining seeds"
    assert seeds.start >= EVALUATION_SEEDS.stop, "pretraining would see evaluation scenes"
    torch.set_num_threads(args.threads)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    stages = {"render": render, "latents": cache_latents, "vae": train_vae, "unet": train_unet, "export": export}
    for name in args.stages:
        started = time.time()
        stages[name](args, seeds)
        print(f"{name}: {time.time() - started:.0f} s", flush=True)


# ------------------------------------------------------------------------------------------------- scenes
def _render_block(seeds: range) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    names = list(CLASSES.values())

    def named(mask: npt.NDArray[np.uint8], share: float) -> npt.NDArray[np.bool_]:
        words = class_prompt(mask, min_share=share).split()
        return np.array([name in words for name in names])

    images, whole, crops = [], [], []
    for seed in seeds:
        image, mask = render_scene(seed)
        images.append(image)
        whole.append(named(mask, 0.01))
        crops.append([[named(mask[y : y + 32, x : x + 32], 0.02) for x in CORNERS] for y in CORNERS])
    return np.stack(images), np.stack(whole), np.array(crops)


def render(args: argparse.Namespace, seeds: range) -> None:
    """Render the scenes once; masks are reduced to lists of visible classes and thrown away.

    Writes images.npy [N, 64, 64, 3] uint8, present.npy [N, K] bool (classes of the whole view) and crops.npy
    [N, 3, 3, K] bool (classes of the nine half-size views, which are prompts for crops of the image).
    """
    if (args.run_dir / "crops.npy").exists():
        return
    blocks = [range(first, min(first + 500, seeds.stop)) for first in range(seeds.start, seeds.stop, 500)]
    with ProcessPoolExecutor(args.threads) as pool:
        results = list(tqdm(pool.map(_render_block, blocks), total=len(blocks), desc="render", mininterval=10))
    for index, name in enumerate(("images", "present", "crops")):
        partial = args.run_dir / f"{name}.part.npy"
        np.save(partial, np.concatenate([result[index] for result in results]))
        partial.replace(args.run_dir / f"{name}.npy")


# ---------------------------------------------------------------------------------------------------- VAE
@torch.no_grad()
def cache_latents(args: argparse.Namespace, _seeds: range) -> None:
    """Fix the latent space (principal components of 4 x 4 patches) and encode every image once."""
    if (args.run_dir / "latents.pt").exists():
        return
    images = np.load(args.run_dir / "images.npy", mmap_mode="r")
    sample = patches(torch.from_numpy(images[:4000])).double()
    mean = sample.mean(0)
    values, vectors = torch.linalg.eigh((sample - mean).T.cov())
    values, vectors = values.flip(0)[:LATENT_CHANNELS], vectors.flip(1)[:, :LATENT_CHANNELS]
    # Half-whitened: pure components would leave colour far below brightness, in the noise of most timesteps.
    basis = (vectors * values**-0.25).T
    blocks = [patches(torch.from_numpy(images[i : i + 1000])) for i in range(0, len(images), 1000)]
    latents = torch.cat([(block - mean.float()) @ basis.T.float() for block in blocks])
    latents = latents.view(-1, 16, 16, LATENT_CHANNELS).permute(0, 3, 1, 2).contiguous()
    print("latent standard deviations", latents.std((0, 2, 3)).tolist())
    cache = {"latents": latents, "basis": basis.float(), "mean": mean.float()}
    save_atomic(cache | {"scaling_factor": round(float(1 / latents.std()), 5)}, args.run_dir / "latents.pt")


def patches(images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] to float [N * H/4 * W/4, 48] in [-1, 1]."""
    n, h, w, _ = images.shape
    cut = images.view(n, h // 4, 4, w // 4, 4, 3).transpose(2, 3)
    return cut.reshape(-1, 48).float() / 127.5 - 1


def new_vae(args: argparse.Namespace) -> AutoencoderKL:
    """The VAE with its encoder in place and an untrained decoder that starts as a linear map."""
    cache = torch.load(args.run_dir / "latents.pt", weights_only=True, mmap=True)
    torch.manual_seed(args.seed)
    vae = build_vae()
    set_linear_encoder(vae, cache["basis"].clone(), cache["mean"].clone())
    vae.register_to_config(scaling_factor=cache["scaling_factor"])
    for module in vae.decoder.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
    if args.init_from:
        vae.load_state_dict(shipped(args.init_from).vae.state_dict())
    return vae


def shipped(folder: Path) -> StableDiffusionPipeline:
    """Read an exported pipeline, in float32."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    return pipe.to(dtype=torch.float32)


@torch.no_grad()
def take_words(text: nn.Module, tokenizer: Any, pipe: StableDiffusionPipeline) -> None:
    """Copy the weights of a pipeline's text encoder, its words by their names: vocabularies may differ."""
    state, table = pipe.text_encoder.state_dict(), text.get_input_embeddings().weight.clone()
    theirs = pipe.tokenizer.get_vocab()
    pairs = [(row, theirs[token]) for token, row in tokenizer.get_vocab().items() if token in theirs]
    mine, other = (torch.tensor(rows) for rows in zip(*pairs, strict=True))
    table[mine] = pipe.text_encoder.get_input_embeddings().weight[other]
    name = next(key for key in state if key.endswith("token_embedding.weight"))
    text.load_state_dict({**state, name: table})


def train_vae(args: argparse.Namespace, seeds: range) -> None:
    """Train the decoder on the fixed latents: L1 on colours and on differences between neighbours (edges)."""
    if (args.run_dir / "vae.pt").exists():
        return
    images = np.load(args.run_dir / "images.npy", mmap_mode="r")
    latents = torch.load(args.run_dir / "latents.pt", weights_only=True, mmap=True)["latents"]
    vae = new_vae(args)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    decoder = nn.ModuleList([vae.post_quant_conv, vae.decoder]).to(memory_format=torch.channels_last).train()
    decoder.to(args.device)
    parameters = list(decoder.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    ema = Ema(parameters, decay=0.995)
    for step, finish in loop("vae", args, [decoder], optimiser, ema, args.vae_steps, 50):
        rows = torch.randint(len(images), (args.vae_batch,), generator=step_generator(seeds.start, step))
        x = torch.from_numpy(images[rows.numpy()]).to(args.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        z = latents[rows].to(args.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            y = decoder[1](decoder[0](z)).float()
        edges = (y.diff(dim=2) - x.diff(dim=2)).abs().mean() + (y.diff(dim=3) - x.diff(dim=3)).abs().mean()
        loss = (y - x).abs().mean() + 0.25 * edges
        loss.backward()
        finish(loss.detach())
    for parameter, average in zip(parameters, ema.shadow, strict=True):
        parameter.data.copy_(average)
    save_atomic(vae.state_dict(), args.run_dir / "vae.pt")


# --------------------------------------------------------------------------------------------------- UNet
def random_crops(latents: Tensor, crops: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw small views: latents [count, C, 8, 8] and the classes that each of them shows [count, K] bool.

    Args:
        latents: [N, C, h, w].
        crops: [N, R, S, K] bool, the classes of R x S views, evenly spaced over the image.
        count: How many to draw.
        generator: Source of randomness.
    """
    ways, (height, width) = crops.shape[1:3], latents.shape[2:]
    device = latents.device
    rows = torch.randint(len(latents), (count,), generator=generator, device=device)
    y, x = (torch.randint(n, (count,), generator=generator, device=device) for n in ways)
    views = latents[rows].unfold(2, 8, (height - 8) // (ways[0] - 1)).unfold(3, 8, (width - 8) // (ways[1] - 1))
    return views[torch.arange(count, device=device), :, y, x], crops[rows, y, x]


class Denoiser:
    """The noise prediction loss of a UNet and a text encoder under prompts of class words."""

    def __init__(self, unet: nn.Module, text: nn.Module, tokenizer: Any, names: Iterable[str]) -> None:
        device = next(unet.parameters()).device
        self.unet, self.text, self.alphas = unet, text, build_scheduler().alphas_cumprod.to(device)
        ids = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
        assert all(len(each) == 1 for each in ids), "every class must be one token"
        row = [*(each[0] for each in ids), tokenizer.bos_token_id, tokenizer.eos_token_id]
        self.words = torch.tensor([row], device=device)

    def __call__(
        self, x: Tensor, present: Tensor, generator: torch.Generator, *, ceiling: float = 6.0, floor: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted loss and the plain error of latents x [B, C, h, w] that show `present` [B, K]."""
        empty = torch.rand(len(x), 1, generator=generator, device=x.device) < 0.1
        # One timestep per stratum: the same uniform distribution with a calmer loss.
        drawn = torch.rand(len(x), generator=generator, device=x.device)
        t = ((torch.arange(len(x), device=x.device) + drawn) / len(x) * 1000).long().clamp(max=999)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        a = self.alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * noise
        context = self.text(self.words)[0].expand(len(x), -1, -1)
        bias = prompt_keys(present & ~empty)
        with torch.autocast(x.device.type, torch.bfloat16):
            predicted = self.unet(noisy, t, context, cross_attention_kwargs={"key_bias": bias}).sample
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        # Where noise is high, layout and classes are decided, and there an error of epsilon means a large error of the
        # image: weigh by what the image loses (as v-prediction does), and less where the noise is low.
        snr = self.alphas[t] / (1 - self.alphas[t])
        return (error * (snr + floor).clamp(max=ceiling) / snr).mean(), error.mean().detach()


def train_unet(args: argparse.Namespace, seeds: range) -> None:
    """Denoise cached latents under class-list prompts; UNet and text encoder together, with EMA."""
    cache = torch.load(args.run_dir / "latents.pt", weights_only=True)
    latents = (cache["latents"] * cache["scaling_factor"]).to(args.device)
    present_all, crops_all = (
        torch.from_numpy(np.load(args.run_dir / f"{name}.npy")).to(args.device) for name in ("present", "crops")
    )
    few_classes = 1.0 / present_all.sum(1).clamp(min=1)
    torch.manual_seed(seeds.start + 1)
    tokenizer, unet = build_tokenizer(), build_unet().train()
    text = build_text_encoder(tokenizer).train()
    if args.init_from:
        pipe = shipped(args.init_from)
        unet.load_state_dict(pipe.unet.state_dict())
        take_words(text, tokenizer, pipe)
    unet.set_attn_processor(ShortAttention())
    unet.to(args.device), text.to(args.device)
    denoise = Denoiser(unet, text, tokenizer, CLASSES.values())
    parameters = [p for module in (unet, text) for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    for step, finish in loop("unet", args, [unet, text], optimiser, ema := Ema(parameters), args.steps, 200):
        generator = step_generator(seeds.start + 1, step, args.device)
        plain = step < args.plain_steps
        if plain:
            rows = torch.randint(len(latents), (args.batch,), generator=generator, device=args.device)
            x, present = latents[rows], present_all[rows]
        elif step % 2:
            # Half-size views cost a quarter, name fewer classes, and so tie a word to a place's look.
            x, present = random_crops(latents, crops_all, 3 * args.batch, generator)
        else:
            rows = torch.multinomial(few_classes, args.batch, generator=generator)
            x, present = latents[rows], present_all[rows]
        loss, error = denoise(x, present, generator, **({"ceiling": 5.0, "floor": 0.0} if plain else {}))
        loss.backward()
        finish(error)
    for parameter, average in zip(parameters, ema.shadow, strict=True):
        parameter.data.copy_(average)
    save_atomic({"unet": unet.state_dict(), "text": text.state_dict()}, args.run_dir / "unet.pt")


# ------------------------------------------------------------------------------------------------- export
def export(args: argparse.Namespace, _seeds: range) -> None:
    """Write the pipeline as half-precision safetensors, with a thinned training log."""
    vae, unet, tokenizer = new_vae(args), build_unet(), build_tokenizer()
    text, weights = (
        build_text_encoder(tokenizer),
        torch.load(args.run_dir / "unet.pt", weights_only=True, map_location="cpu"),
    )
    vae.load_state_dict(torch.load(args.run_dir / "vae.pt", weights_only=True, map_location="cpu"))
    unet.load_state_dict(weights["unet"])
    text.load_state_dict(weights["text"])
    pipeline = StableDiffusionPipeline(
        vae=vae, unet=unet, text_encoder=text, tokenizer=tokenizer, scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to(dtype=torch.float16).save_pretrained(args.out, safe_serialization=True)
    rows = [json.loads(line) for line in (args.run_dir / "training_log.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["step"] % 100 == 0]
    (args.out / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    total = sum(path.stat().st_size for path in args.out.rglob("*.safetensors"))
    print(f"{args.out}: {total / 1e6:.2f} MB of safetensors")


if __name__ == "__main__":
    main()
