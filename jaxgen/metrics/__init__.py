"""Numbers of images, in float64: metrics, the networks that they look through, and sets of images on the disk."""
