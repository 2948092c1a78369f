"""Publishing a folder that genaug made: all of it in one commit, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from genaug.errors import ConfigError
from genaug.hub.adapters import CONFIG, adapter_parcel
from genaug.hub.client import is_offline, make_client
from genaug.hub.errors import HubError, hub_errors
from genaug.hub.licenses import check_license
from genaug.hub.listing import Listing, read_listing
from genaug.hub.parcel import Parcel, Wishes, check_fetchable, read_figures, size_of
from genaug.hub.reference import HubRef
from genaug.hub.shards import Packed
from genaug.hub.stores import store_parcel
from genaug.store.files import DATASET, system_errors

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi


@dataclass(frozen=True, slots=True)
class Target:
    """Where a parcel goes, and how.

    Args:
        ref: The repository; ``revision`` is always None.
        private: Whether a repository that is made now is private; None leaves that to the Hub.
        create_pr: Propose the change instead of making it.
        version: Name of a tag for what is pushed, so that others can name it.
    """

    ref: HubRef
    private: bool | None = None
    create_pr: bool = False
    version: str | None = None


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
        create_pr: Propose the change as a pull request.
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
    wishes = Wishes(
        license=check_license(license, what=what),
        base=base,
        base_revision=base_revision,
        tags=tuple(tags),
        figures=read_figures(Path(figures)) if figures is not None else (),
        pictures=pictures,
    )
    target = Target(_reference(repo, is_store), private, create_pr, version)
    _check_version(target)
    parcel = (store_parcel if is_store else adapter_parcel)(folder, target.ref.repo, wishes)
    check_fetchable(parcel, str(folder))
    report = {
        "repo": target.ref.repo,
        "type": parcel.type,
        **parcel.about,
        "license": wishes.license,
        "files": [{"path": name, "bytes": size_of(content)} for name, content in sorted(parcel.files.items())],
        "notes": parcel.notes,
    }
    if dry_run:
        card = parcel.files["README.md"]
        assert isinstance(card, bytes)  # both kinds of parcels write their card
        return {**report, "dry_run": True, "card": card.decode()}
    if is_offline():
        found, hint = "HF_HUB_OFFLINE keeps genaug from asking the Hub", "Unset it, or --dry-run"
        raise HubError(found, where=str(target.ref), hint=hint)
    return {**report, **send(make_client(token), parcel, target)}


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


def _check_version(target: Target) -> None:
    if target.version is not None:
        HubRef(target.ref.repo, target.version)  # the form of a revision
        if target.create_pr:
            raise ConfigError("a version of a proposal", where="version", hint="Tag it once the proposal is merged")


def send(api: HfApi, parcel: Parcel, target: Target) -> dict[str, Any]:
    """Bring a repository to a parcel's content, in one commit.

    Raises:
        HubError: The Hub cannot be reached or refuses; the repository's content is as before.
    """
    ref, where = target.ref, str(target.ref)
    if not target.create_pr:
        with hub_errors(where):
            api.create_repo(ref.repo, repo_type=ref.type, private=target.private, exist_ok=True)
    listing = read_listing(api, ref)
    if target.private and not listing.private:
        hint = "Make it private on its page first, or leave --private out"
        raise HubError("the repository is there already, and it is public", where=where, hint=hint)
    _check_kind(api, parcel, listing)
    stale = [name for name in listing.files if name.startswith(parcel.owned) and name not in parcel.files]
    check_fetchable(parcel, where, beside=sorted(set(listing.files).difference(stale, parcel.files)))
    result = {
        "url": f"{api.endpoint}/{'datasets/' if ref.type == 'dataset' else ''}{ref.repo}",
        "commit": listing.commit,
        "removed": len(stale),
        "pull_request": None,
    }
    with TemporaryDirectory(prefix="genaug-push-") as folder:
        additions = _additions(api, parcel, target, listing, Path(folder))
        result |= {"sent": len(additions), "unchanged": not additions and not stale}
        if additions or stale:
            result |= _commit(api, [*additions, *_deletions(parcel, stale)], target, listing.commit)
    if target.version is not None:
        _tag(api, target, str(result["commit"]))
    return result


def _additions(api: HfApi, parcel: Parcel, target: Target, listing: Listing, folder: Path) -> list[CommitOperationAdd]:
    """Return what the repository lacks. Shards are made, compared and sent one by one, each in the space of one."""
    from huggingface_hub import CommitOperationAdd

    def lacks(name: str, content: Path | bytes) -> bool:
        return name not in listing.files or not listing.files[name].holds(content)

    additions, packed = [], []
    for name, content in sorted(parcel.files.items()):
        if isinstance(content, Packed):
            packed.append((name, content))
        elif lacks(name, content):
            additions.append(CommitOperationAdd(name, content))
    for name, shard in tqdm(packed, "pack and send", unit="shard", delay=1):
        path = folder / Path(name).name
        with system_errors("write", path):
            shard.write(path)
        if lacks(name, path):
            addition = CommitOperationAdd(name, path)
            with hub_errors(str(target.ref)):
                api.preupload_lfs_files(
                    target.ref.repo, [addition], repo_type=target.ref.type, create_pr=target.create_pr
                )
            additions.append(addition)
            if addition.path_or_fileobj:  # no large file to this Hub: it goes with the commit
                continue
        path.unlink()
    return additions


def _deletions(parcel: Parcel, stale: Sequence[str]) -> list[CommitOperationDelete]:
    """Return what to remove: folders of which nothing stays as one."""
    from huggingface_hub import CommitOperationDelete

    gone = [p for p in parcel.owned if p.endswith("/") and not any(name.startswith(p) for name in parcel.files)]
    whole = [folder for folder in gone if any(name.startswith(folder) for name in stale)]
    return [CommitOperationDelete(name) for name in (*whole, *(n for n in stale if not n.startswith(tuple(whole))))]


def _check_kind(api: HfApi, parcel: Parcel, listing: Listing) -> None:
    """Refuse to write over what genaug did not write, or an adapter of another method, which somebody may use.

    Raises:
        HubError: The repository holds such.
    """
    where, hint = str(listing.ref), "Choose another name"
    if (CONFIG if parcel.type == "model" else DATASET) not in listing.files:
        ours = [name for name in listing.files if name in parcel.files or name.startswith(parcel.owned)]
        if foreign := [name for name in ours if name != "README.md"]:
            raise HubError(f"it holds files that genaug did not write, e.g. {foreign[0]}", where=where, hint=hint)
        return
    if parcel.type == "dataset":
        return
    with hub_errors(where):
        path = api.hf_hub_download(listing.ref.repo, CONFIG, revision=listing.commit, repo_type=listing.ref.type)
    try:
        there = json.loads(Path(path).read_bytes()).get("method")
    except (OSError, ValueError, AttributeError):
        return
    if there != parcel.about["method"]:
        raise HubError(f"it holds an adapter of {there!r}", where=where, hint=hint)


def _commit(
    api: HfApi, operations: Sequence[CommitOperationAdd | CommitOperationDelete], target: Target, parent: str | None
) -> dict[str, Any]:
    ref = target.ref
    with hub_errors(str(ref)):
        done = api.create_commit(
            ref.repo,
            operations,
            commit_message=f"genaug push: {len(operations)} changes",
            repo_type=ref.type,
            create_pr=target.create_pr,
            # Nobody else's change is written over: the Hub refuses if the branch has moved since it was listed.
            parent_commit=parent,
        )
    return {"commit": done.oid, "pull_request": done.pr_url}


def _tag(api: HfApi, target: Target, commit: str) -> None:
    assert target.version is not None
    ref = target.ref
    with hub_errors(str(ref)):
        tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(ref.repo, repo_type=ref.type).tags}
        if tags.get(target.version) == commit:
            return
        if target.version not in tags:
            api.create_tag(ref.repo, tag=target.version, revision=commit, repo_type=ref.type)
            return
    raise HubError(
        f"version {target.version!r} is another commit already",
        where=str(ref),
        hint="Others rely on it: choose a new one. What you pushed is on the main branch",
    )
