"""This room reads published weights of StyleGAN2 and fits them to the networks here."""
