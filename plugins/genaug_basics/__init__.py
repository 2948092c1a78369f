"""Toolkit and controls that every method may use: predictors, simple filters, pseudo-masks."""
