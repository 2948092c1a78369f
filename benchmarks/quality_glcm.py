"""Both GLCM figures of an image: all patches counted together, against scikit-image patch by patch; one thread.

The images: scikit-image's photograph of 512x512, the same blurred, four scenes of genaug-tiny in one picture of
256x256, and uniform noise, the worst case. Both sides must agree to 1e-9.
"""

from __future__ import annotations

import numpy as np
from harness import alternate, compare, emit, parser
from PIL import Image, ImageFilter
from skimage import data
from skimage.feature import graycomatrix
from skimage.measure import shannon_entropy

from genaug_quality.fidelity import gray
from genaug_quality.glcm import DISTANCES, PATCH, glcm_entropies
from genaug_tiny.scenes import render_scene

ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)


def by_patch(image: np.ndarray, *, joint: bool) -> tuple[float, float]:
    """Compute the released score as its authors do, and the joint entropy if asked for."""
    scores, entropies = [], []
    for top in range(0, image.shape[0] - PATCH + 1, PATCH):
        for left in range(0, image.shape[1] - PATCH + 1, PATCH):
            patch = image[top : top + PATCH, left : left + PATCH] // 4
            shares = graycomatrix(patch, DISTANCES, ANGLES, levels=64, symmetric=False, normed=True)
            scores.append(shannon_entropy(shares))
            if joint:
                entropies.append(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum((0, 1)).mean())
    return float(np.mean(scores)), float(np.mean(entropies)) if joint else 0.0


def images() -> dict[str, np.ndarray]:
    """Return name -> grey image."""
    photograph = data.astronaut()
    blurred = np.asarray(Image.fromarray(photograph).filter(ImageFilter.GaussianBlur(2)))
    scenes = [render_scene(i, size=128).image for i in range(4)]
    sheet = np.concatenate([np.concatenate(scenes[:2], 1), np.concatenate(scenes[2:], 1)])
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    return {"photograph": gray(photograph), "blurred photograph": gray(blurred), "scenes": gray(sheet), "noise": noise}


def main() -> None:
    """Time every image: ours computes both figures, scikit-image both or the released score alone."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=9)
    options = arguments.parse_args()
    rows = []
    for name, image in images().items():
        assert np.allclose(glcm_entropies(image), by_patch(image, joint=True), rtol=0, atol=1e-9)
        times = alternate(
            {
                "ours": lambda: glcm_entropies(image),
                "both": lambda: by_patch(image, joint=True),
                "score alone": lambda: by_patch(image, joint=False),
            },
            runs=options.runs,
        )
        for baseline in ("both", "score alone"):
            title = f"{name} {image.shape[1]}x{image.shape[0]}, against {baseline}"
            rows.append(compare(title, times, candidate="ours", baseline=baseline))
    emit(rows, options.json)


if __name__ == "__main__":
    main()
