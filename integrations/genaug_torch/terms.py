"""The terms of a recipe as the step sees them: their names, what they need, and the losses that match masks."""

from __future__ import annotations

from collections.abc import Sequence

from genaug.errors import ConfigError
from genaug.interfaces import Mixer
from genaug.step_config import SupervisedConfig, TermConfig
from genaug_torch.outputs import OutputKind
from genaug_torch.sets import SetLoss


def takes_strong(term: TermConfig) -> bool:
    """Return whether a term uses strong views that the caller has made."""
    return term.view == "strong" and term.mix_at == "strong"


def term_name(term: TermConfig, number: int) -> str:
    """Return the name of a term in the figures."""
    return term.name or f"term{number}"


def check_terms(terms: Sequence[TermConfig], mixers: Sequence[Mixer | None]) -> None:
    """Refuse terms that share a name, and mixers that look at labels before there are any.

    Raises:
        ConfigError: As above.
    """
    names = ["supervised"]
    for number, (term, mixer) in enumerate(zip(terms, mixers, strict=True)):
        if term_name(term, number) in names:  # their figures would be added up
            found = f"{term_name(term, number)!r}, which another loss has"
            raise ConfigError(found, where=f"terms.{number}.name", hint="Give every term a name of its own")
        names.append(term_name(term, number))
        if mixer is not None and mixer.needs_targets and term.order == "mix-then-label":
            raise ConfigError(
                f"{type(mixer).__name__} looks at labels, which come after it",
                where=f"terms.{number}.order",
                allowed="label-then-mix",
            )


def set_losses(supervised: SupervisedConfig, terms: Sequence[TermConfig], kind: OutputKind) -> dict[str, SetLoss]:
    """Return the set losses by the name of what they are for.

    Raises:
        ConfigError: There are some, but the model has no queries.
    """
    parts: dict[str, SupervisedConfig | TermConfig] = {"supervised": supervised}
    parts.update((term_name(term, number), term) for number, term in enumerate(terms))
    losses = {name: SetLoss(**part.set_loss.model_dump()) for name, part in parts.items() if part.loss == "set"}
    if losses and kind != "queries":
        found = f"{kind!r}, but the loss of {', '.join(losses)} is 'set', which matches masks with queries"
        raise ConfigError(found, where="kind", allowed="queries", hint="Or change supervised.loss and the terms' loss")
    return losses
