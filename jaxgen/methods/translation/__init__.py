"""This room holds translations from one domain of pictures to another, with pairs and without."""
