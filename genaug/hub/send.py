"""Sending a parcel: what the Hub lacks of it, in one commit or one proposal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from genaug.errors import ConfigError
from genaug.hub.adapters import CONFIG
from genaug.hub.errors import HubError, hub_errors
from genaug.hub.listing import Listing, read_listing
from genaug.hub.parcel import Parcel, check_fetchable
from genaug.hub.reference import HubRef
from genaug.hub.shards import Packed
from genaug.store.files import DATASET, system_errors

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

#: What the messages of commits, and so the titles of proposals, begin with.
_TITLE = "genaug push"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a parcel goes, and how.

    Args:
        ref: The repository; ``revision`` is always None.
        private: Whether a repository that is made now is private; None leaves that to the Hub.
        create_pr: Propose the change instead of making it.
        version: Name of a tag for what is pushed, so that others can name it.

    Raises:
        ConfigError: No such version can be, or a proposal has one.
    """

    ref: HubRef
    private: bool | None = None
    create_pr: bool = False
    version: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None:
            HubRef(self.ref.repo, self.version)  # the form of a revision
            if self.create_pr:
                raise ConfigError("a version of a proposal", where="version", hint="Tag it once the proposal is merged")


def send(api: HfApi, parcel: Parcel, target: Target) -> dict[str, Any]:
    """Bring a repository to a parcel's content, in one commit, or propose that unless an open proposal does already.

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
    stale = _stale(parcel, listing)
    check_fetchable(parcel, where, beside=sorted(set(listing.files).difference(stale, parcel.files)))
    result: dict[str, Any] = {
        "url": f"{api.endpoint}/{'datasets/' if ref.type == 'dataset' else ''}{ref.repo}",
        "commit": listing.commit,
        "removed": len(stale),
        "pull_request": None,
    }
    if target.create_pr and (open_one := _proposal(api, parcel, ref)) is not None:
        return {**result, **open_one, "sent": 0, "removed": 0, "unchanged": True}
    with TemporaryDirectory(prefix="genaug-push-") as folder:
        additions = _additions(api, parcel, target, listing, Path(folder))
        result |= {"sent": len(additions), "unchanged": not additions and not stale}
        if additions or stale:
            result |= _commit(api, [*additions, *_deletions(parcel, stale)], target, listing.commit)
    if target.version is not None:
        _tag(api, target, str(result["commit"]))
    return result


def _stale(parcel: Parcel, listing: Listing) -> list[str]:
    """Return what an earlier push of genaug wrote and this one does not."""
    return [name for name in listing.files if name.startswith(parcel.owned) and name not in parcel.files]


def _proposal(api: HfApi, parcel: Parcel, ref: HubRef) -> dict[str, Any] | None:
    """Return the commit and the address of an open proposal with this content; None if there is none.

    Shards are not made for this: tables that are equal have the hashes of the same pictures.
    """
    with hub_errors(str(ref)):
        found = api.get_repo_discussions(
            ref.repo, repo_type=ref.type, discussion_type="pull_request", discussion_status="open"
        )
        ours = [proposal for proposal in found if proposal.title.startswith(_TITLE)]
    for proposal in ours:
        listing = read_listing(api, HubRef(ref.repo, proposal.git_reference, ref.type))
        lacking = (
            name not in listing.files if isinstance(content, Packed) else listing.lacks(name, content)
            for name, content in parcel.files.items()
        )
        if not any(lacking) and not _stale(parcel, listing):
            return {"commit": listing.commit, "pull_request": proposal.url}
    return None


def _additions(api: HfApi, parcel: Parcel, target: Target, listing: Listing, folder: Path) -> list[CommitOperationAdd]:
    """Return what the repository lacks. Shards are made, compared and sent one by one, each in the space of one."""
    from huggingface_hub import CommitOperationAdd

    additions, packed = [], []
    for name, content in sorted(parcel.files.items()):
        if isinstance(content, Packed):
            packed.append((name, content))
        elif listing.lacks(name, content):
            additions.append(CommitOperationAdd(name, content))
    for name, shard in tqdm(packed, "pack and send", unit="shard", delay=1):
        path = folder / Path(name).name
        with system_errors("write", path):
            shard.write(path)
        if listing.lacks(name, path):
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
            commit_message=f"{_TITLE}: {len(operations)} changes",
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
