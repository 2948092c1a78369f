"""Options. Light: pydantic only, since ``genaug check`` imports it."""

from pydantic import Field

from genaug.config import Options


class ExposureOptions(Options):
    """Options of the filter ``exposure``."""

    most: float = Field(0.5, gt=0, le=1, description="Largest share of pixels that are black or white.")

    @property
    def judges_unlabeled(self) -> bool:
        """Whether it can judge samples without masks."""
        return True


class StripesOptions(Options):
    """Options of the mixer ``stripes``."""

    least: float = Field(0.25, ge=0, le=1, description="Least share of the width that stays the image's own.")
