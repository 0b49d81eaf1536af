"""This room compares a set of samples with a set of real images: Fréchet and kernel distances, recall, copies."""
