"""A stand-in for detectron2: the surface that genaug_detectron2 and its tests touch, and nothing else.

Our own code, written against the documented behaviour. ``test_detectron2_surface.py`` compares it with the real one.
"""
