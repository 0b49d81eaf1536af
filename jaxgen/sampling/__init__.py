"""This room goes from a trained model and a user's inputs to images: the generator, prompts, restored models."""
