"""This room holds classifiers of images, of noisy images and of codes: one file a method."""
