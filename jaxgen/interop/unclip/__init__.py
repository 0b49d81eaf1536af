"""This room reads and writes the weights of unCLIP in the formats of others."""
