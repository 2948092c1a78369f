"""Toolkit around diffusers: base models, layout conditioning, schedulers, sampling, adapter training.

The only package of genaug that imports diffusers, peft, transformers and accelerate for generation.
"""
