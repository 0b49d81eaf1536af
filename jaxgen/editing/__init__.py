"""What uses a trained model without training it: pure functions of a denoiser, a schedule, images and keys.

A denoiser is `(x, t) -> Prediction`, conditions closed over; images are `[B, H, W, C]` in [-1, 1]; there is one key
per image. `python -m jaxgen.editing RUN --out=FOLDER` draws all of them for a trained run.
"""
