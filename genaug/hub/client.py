"""The Hub's client, made as HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN say at the time of the call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from genaug import __version__
from genaug.hub.errors import hide

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def is_offline() -> bool:
    """Return True if HF_HUB_OFFLINE is set now, or was when the client was imported."""
    from huggingface_hub import constants

    value = os.environ.get("HF_HUB_OFFLINE", "").strip().upper()
    return value in {"1", "ON", "YES", "TRUE"} or bool(constants.HF_HUB_OFFLINE)


def make_client(token: str | None) -> HfApi:
    """Return a client.

    Args:
        token: None takes HF_TOKEN, or what ``hf auth login`` stored.
    """
    from huggingface_hub import HfApi

    if token is not None:
        hide(token)
    # The client reads HF_ENDPOINT once, when it is imported; a program may set it later.
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    return HfApi(endpoint=endpoint, token=token, library_name="genaug", library_version=__version__)
