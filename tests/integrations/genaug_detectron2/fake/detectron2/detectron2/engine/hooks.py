from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from detectron2.engine.train_loop import HookBase


class PeriodicCheckpointer(HookBase):
    def __init__(self, checkpointer: Any, period: int) -> None:
        self.checkpointer, self.period = checkpointer, period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period == 0:
            self.checkpointer.save(f"model_{self.trainer.iter:07d}", iteration=self.trainer.iter)
        if done >= self.trainer.max_iter:
            self.checkpointer.save("model_final", iteration=self.trainer.iter)


class EvalHook(HookBase):
    def __init__(self, eval_period: int, eval_function: Callable[[], Any], eval_after_train: bool = True) -> None:
        self._period, self._func = eval_period, eval_function

    def _do_eval(self) -> None:
        self.trainer.storage.put_scalars(**dict(_flat(self._func() or {})), smoothing_hint=False)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._do_eval()

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._do_eval()


class PeriodicWriter(HookBase):
    def __init__(self, writers: list[Any], period: int = 20) -> None:
        self._writers = writers


def _flat(results: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in results.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
