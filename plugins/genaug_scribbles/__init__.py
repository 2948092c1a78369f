"""Scribbles as labels: read from stroke files, or made from masks."""
