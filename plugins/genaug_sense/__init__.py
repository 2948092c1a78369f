"""SENSE: pseudo-labels by entropic optimal transport between pixels and classes."""
