"""Networks of discrete codes: an autoencoder that makes them, and a transformer that predicts them."""
