"""This room uses a trained model without training it: by pure functions of a `DiffusionModel`, images and keys.

Images are `[B, H, W, C]` in [-1, 1]; there is one key per image. `python -m jaxgen.editing --workdir=RUN --out=FOLDER`
draws all of them for a trained run.
"""
