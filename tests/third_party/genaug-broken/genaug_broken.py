"""Written for a genaug that never was."""

from genaug import something_that_does_not_exist  # noqa: F401
