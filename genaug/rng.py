"""One integer in, any number of independent streams out, addressed by name and never by order of use."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

Key = str | int


class Rng:
    """A node in a tree of random streams.

    A stream is found by its path alone: ``Rng(7).child("generate", "street_01", 3)`` is the same stream
    whichever process asks first, in whatever batch, order or resumed run. No global state is read or set.

    Args:
        seed: Any integer; the same integer gives the same tree on every platform.
        path: Keys from the root; use `child` rather than passing it.
    """

    __slots__ = ("path", "seed")

    def __init__(self, seed: int, path: tuple[Key, ...] = ()) -> None:
        self.seed = int(seed)
        self.path = path

    def child(self, *keys: Key) -> Rng:
        """Return the stream below this one that `keys` (strings or integers) address."""
        return Rng(self.seed, self.path + keys)

    def integer(self, bits: int = 63) -> int:
        """Return this stream's number in ``[0, 2**bits)``; 63 bits suit ``torch.Generator.manual_seed``."""
        # The type and length of every key enter the hash, so ("ab", "c"), ("a", "bc") and (1,), ("1",) differ.
        digest = hashlib.sha256(f"i{self.seed};".encode())
        for key in self.path:
            kind = "i" if isinstance(key, int) else "s"
            data = str(int(key) if isinstance(key, int) else key).encode()
            digest.update(f"{kind}{len(data)}:".encode() + data)
        return int.from_bytes(digest.digest()[:16], "big") >> (128 - bits)

    def numpy(self) -> np.random.Generator:
        """Return a fresh numpy generator at the start of this stream."""
        import numpy as np

        return np.random.default_rng(self.integer(64))

    def torch(self) -> torch.Generator:
        """Return a fresh CPU ``torch.Generator`` at the start of this stream."""
        import torch

        return torch.Generator(device="cpu").manual_seed(self.integer(63))

    def __repr__(self) -> str:
        return f"Rng({self.seed}, path={self.path})"
