"""genaug in transformers: query segmenters, Trainer callback, data collator."""
