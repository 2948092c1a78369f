from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


class DetectionCheckpointer:
    def __init__(self, model: Any, save_dir: str = "", *, save_to_disk: Any = None, **checkpointables: Any) -> None:
        self.model = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
        self.save_dir, self.checkpointables = Path(save_dir), checkpointables

    def save(self, name: str, **kwargs: Any) -> None:
        state = {"model": self.model.state_dict()}
        state |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        torch.save({**state, **kwargs}, self.save_dir / f"{name}.pth")
        (self.save_dir / "last_checkpoint").write_text(f"{name}.pth")

    def has_checkpoint(self) -> bool:
        return (self.save_dir / "last_checkpoint").is_file()

    def resume_or_load(self, path: str, *, resume: bool = True) -> None:
        resumed = resume and self.has_checkpoint()
        file = self.save_dir / (self.save_dir / "last_checkpoint").read_text() if resumed else path
        if not file:
            return
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        for key, value in self.checkpointables.items() if resumed else ():
            value.load_state_dict(state[key])
