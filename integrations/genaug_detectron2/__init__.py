"""genaug in detectron2: registered stores, mapper, teacher hook, semi-supervised models."""
