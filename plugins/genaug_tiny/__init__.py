"""genaug-tiny: procedural scenes, a small segmenter and a tiny text-to-image model, all offline.

Light on purpose: importing this package brings neither numpy nor torch. The parts are
`genaug_tiny.scenes` (numpy), `genaug_tiny.segmenter` (torch) and `genaug_tiny.weights` (standard library).
"""
