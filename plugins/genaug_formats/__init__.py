"""Readers and writers of the field's dataset formats."""
