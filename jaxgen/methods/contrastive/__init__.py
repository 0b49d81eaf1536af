"""Methods that learn by comparing the examples of a batch with each other."""
