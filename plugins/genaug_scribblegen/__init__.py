"""ScribbleGen: training images from scribbles, with a ControlNet, scribble guidance and encode ratios."""
