"""The cards that the Hub shows: front matter it understands, and what a stranger needs to know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from genaug.errors import ConfigError
from genaug.hub.parcel import Figure, Wishes
from genaug.hub.reference import HubRef
from genaug.labels import LabelSpace

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def split_card(text: str, *, where: str) -> tuple[dict[str, Any], str]:
    """Return the front matter and the text of a card.

    Raises:
        ConfigError: The front matter is no YAML table.
    """
    found = re.match(r"---\r?\n(.*?)\r?\n---\r?\n?", text, re.DOTALL)
    if found is None:
        return {}, text
    try:
        meta = yaml.safe_load(found.group(1)) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"its front matter cannot be parsed: {error}", where=where) from None
    if not isinstance(meta, dict):
        raise ConfigError("its front matter is no table", where=where)
    return meta, text[found.end() :]


def join_card(meta: Mapping[str, Any], parts: Iterable[str]) -> bytes:
    """Return a card as the content of a file."""
    head = yaml.safe_dump(dict(meta), sort_keys=False, allow_unicode=True)
    body = "\n\n".join(part.strip() for part in parts if part.strip())
    return f"---\n{head}---\n{body}\n".encode()


def class_table(labels: LabelSpace) -> str:
    """Return the classes as a table."""
    rows = [f"| {i} | {_cell(name)} |" for i, name in labels.names.items()]
    return "\n".join(
        ["## Classes", "", "| id | class |", "|---|---|", *rows, "", f"Ignore index: {labels.ignore_index}"]
    )


def figure_table(figures: Sequence[Figure]) -> str:
    """Return measured numbers as a table, each with its command; nothing for none."""
    if not figures:
        return ""
    rows = [f"| {_cell(f.name)} | {_cell(f.value)} | `{_cell(f.command)}` |" for f in figures]
    return "\n".join(["## Figures", "", "| figure | value | command |", "|---|---|---|", *rows])


def tags_of(meta: Mapping[str, Any], *more: str, wishes: Wishes) -> list[str]:
    """Return the tags of a card, each once."""
    given = meta.get("tags") or []
    return list(dict.fromkeys([*(given if isinstance(given, list) else [given]), *more, *wishes.tags]))


def adapter_card(
    text: str, config: Mapping[str, Any], *, repo: str, labels: LabelSpace, wishes: Wishes, pictures: Sequence[str]
) -> bytes:
    """Return an adapter's card.

    Args:
        text: ``README.md`` of its folder, whose words stay.
        config: ``genaug_config.json`` as it is published.
        repo: ``org/name``.
        labels: Class table.
        wishes: License, tags, figures.
        pictures: Places of the pictures in the repository.
    """
    meta, body = split_card(text, where="README.md")
    base, revision, method = config["base"], config.get("revision"), config["method"]
    meta = {key: value for key, value in meta.items() if key not in ("license", "base_model", "tags")}
    meta = {"license": wishes.license, "library_name": "genaug", **meta}
    if _HUB_ID.fullmatch(base):
        meta |= {"base_model": base, "base_model_relation": "adapter"}
    meta["tags"] = tags_of(split_card(text, where="README.md")[0], "genaug", method, wishes=wishes)
    title = "" if body.lstrip().startswith("#") else f"# {repo.partition('/')[2]}"
    shown = [f"![{place.rpartition('/')[2]}]({place})" for place in pictures]
    pinned = f"revision `{revision}`" if revision else "no revision was pinned"
    return join_card(
        meta,
        [
            title,
            body,
            "" if re.search(r"^\| *id *\| *class *\|", body, re.MULTILINE) else class_table(labels),
            "\n\n".join(["## Pictures", *shown]) if shown else "",
            f"""## Use

In a recipe of genaug:

```yaml
generator: {{use: {method}, base: {base}, adapter: "{HubRef(repo)}"}}
```

Append `@` and a tag or commit to stay with this version. `genaug pull {repo}` makes a folder of it.""",
            f"""## Base model and license

Base model: `{base}`, {pinned}. This adapter is published under `{wishes.license}`; it works only together with its
base model, whose own license holds for that and for the images.""",
            figure_table([*_training(config), *wishes.figures]),
        ],
    )


def _training(config: Mapping[str, Any]) -> list[Figure]:
    """Return what the training record says, as far as it is there."""
    record = config.get("training")
    names = {
        "samples": "labelled samples it was trained on",
        "steps": "training steps",
        "final_loss": "training loss, mean of the last 100 steps",
        "held_out_loss": "loss on held-out samples",
    }
    if not isinstance(record, Mapping):
        return []
    found = {text: record.get(key) for key, text in names.items()}
    return [
        Figure(name=text, value=round(value, 6), command="genaug adapt RECIPE")
        for text, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def store_card(
    info: Mapping[str, Any],
    *,
    repo: str,
    labels: LabelSpace,
    wishes: Wishes,
    counts: Mapping[str, int],
    rows: Sequence[str],
    pictures: Sequence[str],
) -> bytes:
    """Return the card of a store.

    Args:
        info: ``dataset.json`` as it is published.
        repo: ``org/name``.
        labels: Class table.
        wishes: License, tags, figures.
        counts: ``images``, ``kept``, and per filter what it dropped.
        rows: Patterns of the files that hold the rows, for the viewer.
        pictures: Places of the pictures in the repository.
    """
    generator = str((info["recipe"].get("generator") or {}).get("use", "unknown"))
    meta = {
        "license": wishes.license,
        "pretty_name": info.get("name", repo),
        "task_categories": ["image-segmentation"],
        "size_categories": [_size(counts["images"])],
        "tags": tags_of({}, "genaug", "synthetic", generator, wishes=wishes),
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": list(rows)}]}],
        # The Hub leaves keys that it does not know alone.
        "genaug": {
            "class_names": dict(labels.names),
            "ignore_index": labels.ignore_index,
            "generator": generator,
            "samples_hash": info["samples_hash"],
            "recipe": "recipe.resolved.yaml",
        },
    }
    return join_card(meta, _store_parts(info, generator, repo, labels, wishes, counts, pictures))


def _store_parts(
    info: Mapping[str, Any],
    generator: str,
    repo: str,
    labels: LabelSpace,
    wishes: Wishes,
    counts: Mapping[str, int],
    pictures: Sequence[str],
) -> list[str]:
    """Return the text of a store's card; the arguments are those of `store_card`."""
    dropped = [
        Figure(name=f"dropped by the filter {name}", value=n, command="genaug filter recipe.resolved.yaml")
        for name, n in counts.items()
        if name not in ("images", "kept")
    ]
    shown = [f"![{place.rpartition('/')[2]}]({place})" for place in pictures]
    return [
        f"# {info.get('name', repo)}",
        f"""{counts["images"]} **synthetic** images with masks for semantic segmentation, made by a model
(`{generator}`, genaug); {counts["kept"]} of them are to train on (`kept`). No image here is a photograph.""",
        class_table(labels),
        "\n\n".join(["## Pictures", *shown]) if shown else "",
        f"""## Use

```python
from datasets import load_dataset

rows = load_dataset("{repo}", split="train", streaming=True)
rows = rows.filter(lambda row: row["kept"])  # image, mask (a pixel is a class id), scores, verdicts
```

`genaug pull datasets/{repo}` makes a store of it, for genaug's own datasets. `recipe.resolved.yaml` has every option
that made it, `manifest.jsonl` one row per image with its seed and its models.""",
        f"## License\n\n`{wishes.license}`. The license of the model that made the images may say more.",
        figure_table([*dropped, *wishes.figures]),
    ]


def _size(count: int) -> str:
    """Return the Hub's name for a number of rows."""
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if count < limit:
            return name
    return "100K<n<1M"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").replace("`", "'")
