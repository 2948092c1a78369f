"""UPC: patches of labelled images pasted over the most uncertain patches of unlabelled ones."""
