"""How fine the texture of an image is: co-occurrence of grey levels, how well it compresses, its noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from genaug.report.figures import Conclusion, Figures, Measured, Record, Sizes, Statistic
from genaug.rng import Rng
from genaug.sources.survey import listed
from genaug.types import Image, Sample
from genaug_quality.glcm import PATCH, glcm_entropies

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import FidelityOptions

Glcm = Literal["both", "released", "joint"]
QUALITY = 95
#: Short sides that figures need: a patch of co-occurrence, a block of JPEG with halved chroma.
NEEDED = (PATCH, 16)


def gray(image: Image) -> NDArray[np.uint8]:
    """Return an image ``[H, W, 3]`` as grey ``[H, W]``, weighted as Rec. 601 does and Pillow rounds."""
    return np.asarray(PILImage.fromarray(image).convert("L"))


def jpeg_bytes(image: Image, quality: int = QUALITY) -> int:
    """Return the size of an image ``[H, W, 3]`` as JPEG with halved chroma (4:2:0), plain Huffman tables."""
    buffer = io.BytesIO()
    PILImage.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0", optimize=False)
    return buffer.getbuffer().nbytes


def png_bytes(image: Image) -> int:
    """Return the size of an image ``[H, W, 3]`` as PNG at Pillow's default level; other zlibs differ by a little."""
    buffer = io.BytesIO()
    PILImage.fromarray(image).save(buffer, "PNG")
    return buffer.getbuffer().nbytes


def noise_sigma(image: Image) -> float:
    """Return the standard deviation of Gaussian noise, in grey levels of 255, by the median of the finest wavelets.

    scikit-image's ``estimate_sigma`` (Donoho and Johnstone 1994), mean over the channels; NaN below 4 pixels a side.
    """
    from skimage.restoration import estimate_sigma

    if min(image.shape[:2]) < 4:
        return float("nan")
    return float(estimate_sigma(image.astype(np.float64), channel_axis=-1, average_sigmas=True))


def resized(image: Image, side: int | None) -> Image:
    """Return an image ``[H, W, 3]`` whose short side is `side` pixels (bicubic, antialiased); unchanged for None."""
    height, width = image.shape[:2]
    if side is None or min(height, width) == side:
        return image
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return np.asarray(PILImage.fromarray(image).resize(size, PILImage.Resampling.BICUBIC))


def common_size(*sets: Sizes) -> tuple[int, int]:
    """Return the short side below which images are left out, and the smallest of the others.

    Brought to the size of one thumbnail, no image has a figure. So images below a patch are left out where at least
    half of every set reach it, and else those below a block of JPEG, unless there are no others.
    """
    most = (n for n in NEEDED if all(2 * _reach(sizes, n) >= sizes.total() for sizes in sets))
    least = next(most, NEEDED[-1] if any(_reach(sizes, NEEDED[-1]) for sizes in sets) else 0)
    return least, min(min(size) for sizes in sets for size in sizes if min(size) >= least)


def _reach(sizes: Sizes, side: int) -> int:
    return sum(count for size, count in sizes.items() if min(size) >= side)


class Fidelity(Figures):
    """Section ``fidelity``. Needs scikit-image for the noise.

    Args:
        glcm: Which entropies of the co-occurrence matrices: the ``released`` score, whose name promises something else
            than it computes, the ``joint`` entropy, or ``both``; see `genaug_quality.glcm.glcm_entropies`.
        jpeg_quality: Of the compression ratio.
        side: Short side that all images are brought to first; None for the smallest of both sets where sizes differ,
            see `common_size`, and for no change where all are of one size.
    """

    title = "Fidelity of the images"
    about = (
        "How fine the texture is. Fine detail raises both entropies of grey-level co-occurrence and lowers the "
        "compression ratio (raw bytes over bytes as JPEG, of the whole set); so does noise, whose strength is "
        "therefore given beside them. As PNG most bytes are noise, so that ratio raises no flag. The GLCM score is the "
        "one that SENSE's authors released: the entropy of how often each value occurs in the matrices, not of the "
        "matrices. Figures compare at one resolution only."
    )
    ranked = ("glcm_joint_entropy",)

    def __init__(self, *, glcm: Glcm = "both", jpeg_quality: int = QUALITY, side: int | None = None) -> None:
        self.glcm, self.jpeg_quality, self.side = glcm, jpeg_quality, side
        #: Images with a smaller short side have no figures.
        self.least = 0
        self._scaled = ""
        if glcm == "released":
            self.ranked = ("glcm_score",)

    @classmethod
    def from_config(cls, options: FidelityOptions, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from options."""
        return cls(glcm=options.glcm, jpeg_quality=options.jpeg_quality, side=options.side)

    def prepare(self, *, synthetic: Sizes, real: Sizes) -> None:
        """Choose a common size where there is none."""
        if self.side is None and len({*synthetic, *real}) > 1:
            self.least, self.side = common_size(synthetic, real)
            self._scaled = f"the sizes differ: all images were resized to a short side of {self.side} pixels"

    def statistics(self) -> Sequence[Statistic]:
        """Return what was asked for."""
        score = Statistic("glcm_score", "GLCM score (released), bits", "glcm_score", worse="lower", harm="coarser")
        joint = Statistic(
            "glcm_joint_entropy", "GLCM joint entropy, bits", "glcm_joint_entropy", worse="lower", harm="coarser"
        )
        return [
            *([score] if self.glcm != "joint" else []),
            *([joint] if self.glcm != "released" else []),
            Statistic(
                "compression_ratio", f"compression ratio, JPEG {self.jpeg_quality}", "raw_bytes", per="jpeg_bytes",
                worse="higher", harm="coarser",
            ),
            Statistic("png_ratio", "compression ratio, PNG", "raw_bytes", per="png_bytes", worse="higher"),
            Statistic("noise", "noise, grey levels of 255", "noise"),
        ]  # fmt: skip

    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Measure every image."""
        return [self._measure(s.image) for s in samples if s.image is not None]

    def _measure(self, image: Image) -> Record:
        if min(image.shape[:2]) < self.least:
            names = ("glcm_score", "glcm_joint_entropy", "raw_bytes", "jpeg_bytes", "png_bytes", "noise")
            return dict.fromkeys(names, float("nan"))
        image = resized(image, self.side)
        score, joint = glcm_entropies(gray(image))
        return {
            "glcm_score": score,
            "glcm_joint_entropy": joint,
            "raw_bytes": float(image.size),
            "jpeg_bytes": float(jpeg_bytes(image, self.jpeg_quality)),
            "png_bytes": float(png_bytes(image)),
            "noise": noise_sigma(image),
        }

    def conclude(self, synthetic: Measured, real: Measured, rng: Rng) -> Conclusion:  # noqa: ARG002
        """Say at what size was measured, and where images were too small."""
        notes = [self._scaled] if self._scaled else []
        left_out: dict[str, list[str]] = {}
        for name, measured in (("synthetic", synthetic), ("real", real)):
            out = np.isnan(measured.numbers("raw_bytes"))
            left_out[name] = gone = [key for key, missing in zip(measured.ids, out, strict=True) if missing]
            if gone:
                notes.append(f"left out, smaller than {self.least} pixels: {len(gone)} {name} images: {listed(gone)}")
            small = int(np.isnan(measured.numbers("glcm_joint_entropy")).sum()) - len(gone)
            if small:
                notes.append(f"{small} {name} images are smaller than a patch of {PATCH} pixels: no GLCM figures")
        return Conclusion({"side": self.side, "left_out": left_out}, notes=tuple(notes))
