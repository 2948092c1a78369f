"""Prompts and text-to-image generation (SENSE): pictures without labels from words."""
