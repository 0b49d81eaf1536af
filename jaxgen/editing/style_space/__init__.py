"""This room works in the latent spaces of a trained style-based generator: embedding a picture, and editing its code.

The functions are pure, of a `StyleModel`, images in [-1, 1], styles [B, layers, D] and one random key for each image.
`python -m jaxgen.editing.style_space USE --workdir=RUN --out=FOLDER` uses them on a run.
"""
