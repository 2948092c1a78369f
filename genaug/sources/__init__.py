"""Readers of labelled and unlabelled data."""
