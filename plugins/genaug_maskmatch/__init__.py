"""MaskMatch: labels averaged over scales, and consistency under masked patches."""
