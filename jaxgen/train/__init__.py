"""This room holds one training loop for all methods, and the compiled update that it calls at each step."""
