"""How a recipe names a component."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ComponentConfig(BaseModel):
    """``{use: <component name>, ...options}``; the options are validated by the component's own model."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str = Field(description="Name of the component, see 'genaug plugins'.")
    name: str | None = Field(None, description="Name in reports and folders; `use` by default.")

    @property
    def label(self) -> str:
        """Name in reports and folders."""
        return self.name or self.use

    @property
    def options(self) -> dict[str, Any]:
        """Everything but ``use`` and ``name``."""
        return dict(self.model_extra or {})
