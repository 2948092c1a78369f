"""Licenses that the Hub knows by name. One is always chosen, never assumed."""

from __future__ import annotations

from genaug.errors import ConfigError, did_you_mean

LICENSES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "isc", "ms-pl", "ncsa",
    "zlib", "unlicense", "wtfpl", "postgresql", "ecl-2.0", "afl-3.0", "artistic-2.0", "epl-1.0", "epl-2.0", "eupl-1.1",
    "eupl-1.2", "mpl-2.0", "osl-3.0", "lppl-1.3c", "lgpl", "lgpl-2.1", "lgpl-3.0", "gpl", "gpl-2.0", "gpl-3.0",
    "agpl-3.0", "gfdl", "ofl-1.1", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "c-uda",
    "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "pddl", "odc-by", "odbl", "openrail",
    "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "bigscience-bloom-rail-1.0", "bigcode-openrail-m",
    "other",
)  # fmt: skip


def check_license(name: str | None, *, what: str) -> str:
    """Return the name of a license.

    Args:
        name: What was chosen.
        what: What is published, for the hint.

    Raises:
        ConfigError: None was chosen, or the Hub knows none of that name.
    """
    if name in LICENSES:
        return str(name)
    hint = f"Choose it yourself: {what}" if name is None else did_you_mean(name, LICENSES)
    found = "no license was chosen" if name is None else f"{name!r}"
    raise ConfigError(found, where="license", allowed=", ".join(LICENSES), hint=hint)
