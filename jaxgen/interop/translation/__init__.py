"""This room reads and writes translation networks in the layout of their authors' PyTorch code."""
