"""One training: the original's, or a subnetwork's."""
