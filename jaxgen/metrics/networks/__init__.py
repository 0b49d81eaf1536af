"""This room holds the networks that metrics see images with: FID's Inception, CLIP, and small classifiers."""
