"""Which labelled image a view takes its patches from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from genaug.errors import SampleError
from genaug.rng import Rng

#: The first draw and up to 8 more while a chosen patch of the donor is mostly ignored.
DRAWS = 9
#: A donor's patch with a larger share of ignored pixels is mostly ignored.
MOSTLY = 0.5


def donor_orders(count: int, views: int, sample: Rng) -> Tensor:
    """Return the order in which each view of a sample tries its donors, drawn without repetition.

    Args:
        count: Number of donors M.
        views: Number of views V.
        sample: The sample's own stream; view v draws from its child v.

    Returns:
        int64 ``[V, M]``, each row a permutation.

    Raises:
        SampleError: No donors.
    """
    if count < 1:
        raise SampleError("no labelled images", where="upc", allowed="at least one donor")
    return torch.stack([torch.randperm(count, generator=sample.child(view).torch()) for view in range(views)])


def choose_donors(orders: Tensor, unfit: Tensor) -> Tensor:
    """Return the donor of every view; those of one image differ as long as there are enough.

    A view takes the first donor of its order that no earlier view of the image took and that is not unfit. If the
    first `DRAWS` of them are all unfit, the very first is taken all the same.

    Args:
        orders: int64 ``[B, V, M]`` from `donor_orders`.
        unfit: bool ``[B, V, M]`` by number of the donor: one of the view's patches is mostly ignored there.

    Returns:
        int64 ``[B, V]``, on the device of the arguments and without waiting for it.
    """
    count, views, donors = orders.shape
    taken = torch.zeros(count, donors, dtype=torch.bool, device=orders.device)
    chosen = []
    for view in range(views):
        if view % donors == 0:  # every donor has been taken: begin again
            taken = torch.zeros_like(taken)
        order = orders[:, view]
        free = ~taken.gather(1, order)
        drawn = free & (free.cumsum(1) <= DRAWS)
        fit = drawn & ~unfit[:, view].gather(1, order)
        place = (drawn.byte() + fit.byte()).argmax(1, keepdim=True)  # of equal values the first
        donor = order.gather(1, place)
        taken = taken.scatter(1, donor, True)
        chosen.append(donor)
    return torch.cat(chosen, 1)


def choose_donor(order: Iterable[int], taken: set[int], unfit: Callable[[int], bool]) -> int:
    """Return the donor of one view, as `choose_donors` does; asks `unfit` only of the donors that are drawn."""
    drawn = [donor for donor in order if donor not in taken][:DRAWS]
    return next((donor for donor in drawn if not unfit(donor)), drawn[0])
