import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The loopback Hub, and the generator that stores are filled with.
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "noise")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):  # the client's own upload of large files, in its own threads
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))


@pytest.fixture(scope="session")
def loopback() -> Iterator[object]:
    from loopback import Loopback

    with Loopback() as server:
        yield server


@pytest.fixture
def hub(loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """The loopback Hub, empty, and this process set up to talk to it as user ``me``."""
    from huggingface_hub import constants

    from genaug.hub.pull import fetch

    loopback.clear()
    for name, value in loopback.environment(tmp_path / "hf").items():
        monkeypatch.setenv(name, value)
    # The client has read these already, when it was imported.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", loopback.url)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", loopback.url)
    template = loopback.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "hf" / "assets"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    # Its waits between attempts are not what is tested.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: loopback.waits.append(seconds))
    fetch.cache_clear()
    return loopback
