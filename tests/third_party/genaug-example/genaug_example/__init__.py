"""A plugin for genaug that is no part of it."""
