"""Contracts: test classes that every implementation of an interface must pass, for plugins to inherit from."""
