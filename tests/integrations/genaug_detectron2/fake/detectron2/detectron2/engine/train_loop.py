from __future__ import annotations

import weakref
from typing import Any

import torch

from detectron2.utils.events import EventStorage


class HookBase:
    trainer: Any = None

    def before_train(self) -> None: ...

    def after_train(self) -> None: ...

    def before_step(self) -> None: ...

    def after_backward(self) -> None: ...

    def after_step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}


class TrainerBase:
    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter = self.start_iter = 0

    def register_hooks(self, hooks: list[HookBase | None]) -> None:
        for hook in hooks:
            if hook is not None:
                assert isinstance(hook, HookBase)
                hook.trainer = weakref.proxy(self)
                self._hooks.append(hook)

    def _call(self, name: str) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            getattr(hook, name)()

    def train(self, start_iter: int, max_iter: int) -> None:
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self._call("before_train")
                for self.iter in range(start_iter, max_iter):
                    self._call("before_step")
                    self.run_step()
                    self._call("after_step")
                self.iter += 1
            finally:
                self._call("after_train")

    def run_step(self) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Of the hooks of one class, the first one's state is saved, by the name of the class."""
        state: dict[str, Any] = {"iteration": self.iter, "hooks": {}}
        for hook in self._hooks:
            if found := hook.state_dict():
                state["hooks"].setdefault(type(hook).__qualname__, found)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.iter = state_dict["iteration"]
        for hook in self._hooks:
            if type(hook).__qualname__ in state_dict["hooks"]:
                hook.load_state_dict(state_dict["hooks"][type(hook).__qualname__])


class SimpleTrainer(TrainerBase):
    def __init__(self, model: Any, data_loader: Any, optimizer: Any) -> None:
        super().__init__()
        model.train()
        self.model, self.data_loader, self.optimizer = model, data_loader, optimizer
        self._batches: Any = None

    def run_step(self) -> None:
        assert self.model.training
        self._batches = iter(self.data_loader) if self._batches is None else self._batches
        losses: dict[str, torch.Tensor] = self.model(next(self._batches))
        total = sum(losses.values())
        self.optimizer.zero_grad()
        total.backward()
        for hook in self._hooks:
            hook.after_backward()
        self._write(losses, total)
        self.optimizer.step()

    def _write(self, losses: dict[str, torch.Tensor], total: Any) -> None:
        from detectron2.utils.events import get_event_storage

        storage = get_event_storage()
        storage.put_scalar("total_loss", total.item())
        if len(losses) > 1:
            storage.put_scalars(**{name: value.item() for name, value in losses.items()})

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
