"""This room computes numbers of images, in float64, and holds the networks and image sets that this takes."""
