from __future__ import annotations

from typing import Any

_STACK: list[EventStorage] = []


class EventStorage:
    def __init__(self, start_iter: int = 0) -> None:
        self.iter = start_iter
        self._latest: dict[str, tuple[float, int]] = {}

    def put_scalar(self, name: str, value: float, smoothing_hint: bool = True) -> None:
        self._latest[name] = float(value), self.iter

    def put_scalars(self, *, smoothing_hint: bool = True, **kwargs: float) -> None:
        for name, value in kwargs.items():
            self.put_scalar(name, value)

    def latest(self) -> dict[str, tuple[float, int]]:
        return self._latest

    def __enter__(self) -> EventStorage:
        _STACK.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        _STACK.pop()


def get_event_storage() -> EventStorage:
    return _STACK[-1]
