"""MatchMask and MatchMask++: new images for existing masks from a few labelled examples."""
