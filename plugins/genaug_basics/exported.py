"""Any segmenter saved by ``torch.export``: no source code and no framework needed to use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from genaug.errors import ConfigError, SampleError
from genaug_basics.fingerprint import file_fingerprint

if TYPE_CHECKING:
    import torch

    from genaug.recipe import BuildContext
    from genaug_basics.config import ExportedOptions


class ExportedPredictor:
    """A ``.pt2`` file written by ``torch.export.save``.

    The program takes float32 ``[B, 3, H, W]`` in ``[0, 1]`` (put the normalisation into the exported module) and
    returns logits ``[B, K, h, w]``, as a tensor or under ``"logits"`` or ``"out"``. Export it with dynamic batch and
    size (``dynamic_shapes``), or it accepts only the shape it was exported with. The file is opened on first use.

    Args:
        path: The file.
        device: Torch device to run on.

    Raises:
        ConfigError: There is no such file.
    """

    def __init__(self, path: str | Path, *, device: str = "cpu") -> None:
        self.path, self.device = Path(path), device
        if not self.path.is_file():
            raise ConfigError(f"{self.path} does not exist", where="predictor exported", allowed="a .pt2 file")
        self._run: Callable[[torch.Tensor], Any] | None = None

    @classmethod
    def from_config(cls, options: ExportedOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(context.path(options.path), device=context.device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 ``[B, 3, H, W]`` in ``[0, 1]`` to logits ``[B, K, h, w]``."""
        import torch

        if self._run is None:
            self._run = self._load()
        try:
            output = self._run(images.to(self.device))
        except (AssertionError, RuntimeError) as error:
            # Shape guards raise either, by torch version.
            raise SampleError(
                f"the program failed on a batch of shape {tuple(images.shape)}: {error}",
                where=str(self.path),
                hint="Export it with dynamic_shapes for batch, height and width, or match batch_size and image size",
            ) from error
        if isinstance(output, Mapping):
            output = output.get("logits", output.get("out"))
        if not isinstance(output, torch.Tensor):
            raise SampleError(
                "the program returned no logits",
                where=str(self.path),
                allowed="a tensor [B, K, H, W], or a dict with 'logits' or 'out'",
            )
        return output

    def fingerprint(self) -> str:
        """Return a hash of the file."""
        return file_fingerprint([self.path])

    def _load(self) -> Callable[[torch.Tensor], Any]:
        import torch

        try:
            program = torch.export.load(self.path)
        except Exception as error:
            raise ConfigError(
                f"cannot be loaded: {error}", where=str(self.path), allowed="a file of torch.export.save"
            ) from error
        if self.device != "cpu":
            # Constants and factory calls keep the device they were exported on; .to() alone would miss them.
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self.device)
        return program.module()
