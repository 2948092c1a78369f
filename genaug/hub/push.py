"""Publishing a folder that genaug made: all of it in one commit, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genaug.errors import ConfigError
from genaug.hub.adapters import CONFIG, adapter_parcel
from genaug.hub.client import is_offline, make_client
from genaug.hub.errors import HubError
from genaug.hub.licenses import check_license
from genaug.hub.parcel import Parcel, Wishes, check_fetchable, read_figures, size_of
from genaug.hub.reference import HubRef
from genaug.hub.send import Target, send
from genaug.hub.stores import store_parcel
from genaug.store.files import DATASET


def push(
    folder: str | Path,
    repo: str,
    *,
    license: str | None,
    base: str | None = None,
    base_revision: str | None = None,
    tags: Iterable[str] = (),
    figures: str | Path | None = None,
    pictures: bool = True,
    private: bool | None = None,
    create_pr: bool = False,
    version: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Publish an adapter folder as a model repository, or a sample store as a dataset.

    The folder is read and checked whole before the Hub is asked for anything, and does not change. What is there
    already is not sent again; if all of it is, no commit is made. A store of more than 10,000 pictures, which are more
    files than the Hub takes, is packed in parquet files (`genaug.hub.shards`).

    Args:
        folder: Written by ``genaug adapt``, or a complete store.
        repo: ``org/name``; made if it is not there.
        license: Name of a license that the Hub knows (`genaug.hub.licenses.LICENSES`). There is no default.
        base: Public name of an adapter's base model, if the adapter knows it by a path.
        base_revision: Its revision.
        tags: Of the card, beside genaug's own.
        figures: YAML or JSON file with a list of ``{name, value, command}`` for the card.
        pictures: Whether pictures go along; an adapter's show labelled images.
        private: Whether only some may see it. True is also checked of a repository that is there.
        create_pr: Propose the change as a pull request, unless one with this content is open.
        version: Tag for what is pushed, to be named as ``hf-hub:org/name@version``.
        token: By default HF_TOKEN or what ``hf auth login`` stored. Neither shown nor kept.
        dry_run: Do all that needs no Hub and return the plan.

    Returns:
        ``repo``, ``type``, ``files`` (place and bytes), ``notes``, and after a push ``commit``, ``url``, ``unchanged``,
        ``sent`` (number of files) and ``pull_request``; for a dry run ``card``.

    Raises:
        ConfigError: No license, a base model nobody else has, and the like.
        AdapterError, StoreError: The folder is not fit to be published.
        HubError: `pull` would refuse it; the Hub cannot be reached or refuses. The repository's content is as before, a
            new one is empty.
    """
    folder = Path(folder).expanduser()
    is_store = _is_store(folder)
    what = "the images come from a model with a license of its own" if is_store else "see also the base model's license"
    license = check_license(license, what=what)
    shown = () if figures is None else read_figures(Path(figures))
    target = Target(_reference(repo, is_store), private, create_pr, version)
    wishes = Wishes(license, base, base_revision, tuple(tags), shown, pictures)
    parcel = (store_parcel if is_store else adapter_parcel)(folder, target.ref.repo, wishes)
    check_fetchable(parcel, str(folder))
    report = _report(parcel, target, license)
    if dry_run:
        card = parcel.files["README.md"]
        assert isinstance(card, bytes)  # both kinds of parcels write their card
        return {**report, "dry_run": True, "card": card.decode()}
    if is_offline():
        found, hint = "HF_HUB_OFFLINE keeps genaug from asking the Hub", "Unset it, or --dry-run"
        raise HubError(found, where=str(target.ref), hint=hint)
    return {**report, **send(make_client(token), parcel, target)}


def _report(parcel: Parcel, target: Target, license: str) -> dict[str, Any]:
    """Return what is known of a push before the Hub is asked."""
    return {
        "repo": target.ref.repo,
        "type": parcel.type,
        **parcel.about,
        "license": license,
        "files": [{"path": name, "bytes": size_of(content)} for name, content in sorted(parcel.files.items())],
        "notes": parcel.notes,
    }


def _is_store(folder: Path) -> bool:
    """Return True for a store, False for an adapter.

    Raises:
        ConfigError: It is neither.
    """
    if (folder / DATASET).is_file():
        return True
    if (folder / CONFIG).is_file():
        return False
    raise ConfigError(
        "neither an adapter nor a store" if folder.is_dir() else "no such folder",
        where=str(folder),
        allowed=f"a folder with {CONFIG} (of 'genaug adapt') or {DATASET} (of 'genaug run')",
    )


def _reference(repo: str, is_store: bool) -> HubRef:
    named = HubRef.parse(repo)
    if named.revision is not None:
        raise ConfigError(f"{repo!r} names a revision", where="repo", hint="Name what you push with --version")
    if named.type == "dataset" and not is_store:
        hint = f"Adapters are published as models: {named.repo}"
        raise ConfigError(f"{repo!r} is a dataset, and the folder holds an adapter", where="repo", hint=hint)
    return HubRef(named.repo, None, "dataset" if is_store else "model")
