"""This room finds the runs that are sampled one behind the other, and makes the stages of a chain of them."""
