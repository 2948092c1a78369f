"""genaug in albumentations: transforms that draw from a store."""
