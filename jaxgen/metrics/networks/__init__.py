"""Networks that images are seen through: FID's Inception, CLIP, and small classifiers with their weights."""
