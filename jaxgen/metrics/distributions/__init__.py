"""Numbers of a set of samples held against a set of real images: Fréchet and kernel distances, recall, copies."""
