"""This subroom uses a generator that has learned one picture (SinGAN): each use begins at a scale, with an image.

`uses` has the mathematics as pure functions; `python -m jaxgen.editing.single_image USE --workdir=RUN --out=FOLDER` are
the commands.
"""
