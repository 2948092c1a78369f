"""What can go wrong between here and the Hub, in one line each, without the token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genaug.errors import GenaugError
from genaug.store.files import store_error


class HubError(GenaugError, OSError):
    """Something on the Hub cannot be had or written, or must not be used."""


class NotOnHubError(HubError):
    """No such repository, as far as this user may see."""


_AGAIN = "Run the same command again: what has arrived is not sent twice"
_LOG_IN = "Log in with 'hf auth login', or set HF_TOKEN"
_hidden: set[str] = set()
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=Bearer )\S+")


@contextmanager
def hub_errors(where: str, *, revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub's client raises inside into a `HubError` of one line.

    Args:
        where: Name of the repository.
        revision: What was asked for, for the message if there is none such.
    """
    import huggingface_hub.errors as hub

    try:
        yield
    except GenaugError:
        raise
    except hub.OfflineModeIsEnabled:
        raise offline(where) from None
    except (_connection_error(), OSError, ValueError, RuntimeError) as error:  # the client raises all of these
        raise _translated(error, where, revision) from None  # what it is chained to may repeat the token
    except (LookupError, TypeError, AttributeError):  # of the client, over an answer of another form
        raise _no_hub(where) from None


def offline(where: str) -> HubError:
    """Return the error for a look at the Hub while HF_HUB_OFFLINE forbids it."""
    return HubError(
        "it is not in the local cache, and HF_HUB_OFFLINE keeps genaug from asking the Hub",
        where=where,
        hint="Unset HF_HUB_OFFLINE once, or name a local folder",
    )


def _no_hub(where: str) -> HubError:
    return HubError("what is at that address does not answer as a Hub", where=where, hint="Check HF_ENDPOINT")


def without_token(text: str) -> str:
    """Return `text` in one line, with whatever looks like a token, or is the one in use, removed."""
    from huggingface_hub import get_token

    text = " ".join(text.split())
    for used in filter(None, (get_token(), *_hidden)):
        text = text.replace(used, "(token)")
    return _TOKEN.sub("(token)", text)


def hide(token: str) -> None:
    """Keep a token that was passed as an argument out of messages, whatever it looks like."""
    _hidden.add(token)


def _translated(error: BaseException, where: str, revision: str | None) -> HubError:
    """Look through the chain of causes for what the server said."""
    import huggingface_hub.errors as hub

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, hub.OfflineModeIsEnabled):
            return offline(where)
        if isinstance(link, hub.HfHubHTTPError):
            return _answered(link, where, revision)
    for link in chain:
        if isinstance(link, _connection_error()):
            return HubError(
                f"the connection to the Hub failed ({without_token(str(link)) or type(link).__name__})",
                where=where,
                hint=f"Check the network and HF_ENDPOINT. {_AGAIN}",
            )
    if isinstance(error, OSError) and error.errno is not None:
        named = error.filename if isinstance(error.filename, str) else where
        refused = store_error("write", Path(named), error)
        return HubError(refused.found, where=named, hint=refused.hint)
    if isinstance(error, json.JSONDecodeError):  # a page for people, perhaps of a proxy
        return _no_hub(where)
    if "Consistency check failed" in str(error):
        return HubError("the transfer broke off: a file came incomplete", where=where, hint=_AGAIN)
    return HubError(without_token(str(error)) or type(error).__name__, where=where)


def _connection_error() -> type[Exception]:
    """Return the root of the errors of the HTTP library, which depends on the client's version."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError" and issubclass(kind, Exception))


def _answered(error: Any, where: str, revision: str | None) -> HubError:
    import huggingface_hub.errors as hub

    status = error.response.status_code
    said = without_token(error.server_message or "").rstrip(".")
    because = f": {said}" if said else ""
    if isinstance(error, hub.GatedRepoError):
        hint = "Accept its terms on its page, logged in with the account of your token"
        return HubError("the repository is gated, and this account was not let in", where=where, hint=hint)
    if isinstance(error, hub.RepositoryNotFoundError):
        found = "no such repository, or a private one that this account may not see"
        return NotOnHubError(found, where=where, hint=f"Check the name. For a private one: {_LOG_IN.lower()}")
    if isinstance(error, hub.RevisionNotFoundError):
        found = f"no revision {revision or 'main'!r}"
        return HubError(found, where=where, allowed="a branch, a tag or a commit of the repository")
    if isinstance(error, hub.EntryNotFoundError):
        return HubError(f"a file is missing on the Hub{because}", where=where, hint=_AGAIN)
    if status == 401:
        return HubError(f"the Hub does not accept the token, or wants one (401{because})", where=where, hint=_LOG_IN)
    if status == 403:
        hint = "Use a token that may write to this repository, or propose the change with --create-pr"
        return HubError(f"this account may not do that (403{because})", where=where, hint=hint)
    if status in (409, 412):
        hint = "Run the same command again: it looks at what is there now"
        return HubError(
            f"the repository was changed by somebody else meanwhile ({status}{because})", where=where, hint=hint
        )
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        hint = f"Wait {wait} seconds" if wait.isdigit() else "Wait some minutes"
        return HubError("too many requests (429)", where=where, hint=f"{hint}, then run the same command again")
    if status >= 500:
        return HubError(f"the Hub has trouble of its own ({status})", where=where, hint=f"Wait a while. {_AGAIN}")
    return HubError(f"the Hub refused ({status}{because})", where=where)
