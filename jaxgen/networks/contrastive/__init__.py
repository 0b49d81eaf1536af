"""Networks beside the towers of CLIP: a convolutional image tower, and a head that writes captions."""
