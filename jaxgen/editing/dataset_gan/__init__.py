"""This room makes labelled data of a trained GAN: a few labelled images of it become any number of image-label pairs.

`python -m jaxgen.editing.dataset_gan USE --workdir=RUN --out=PLACE` uses it on runs.
"""
