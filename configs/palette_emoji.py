"""One Palette for six tasks on emoji at 64 pixels: colour, JPEG, three kinds of holes and uncropping.

Paper: Saharia et al. 2022, "Palette: Image-to-Image Diffusion Models".
Command: python main.py --config=configs/palette_emoji.py --workdir=runs/palette_emoji
Data: an npz of pictures, as in configs/kl_autoencoder_emoji.py; another source by --config.data.source.
Hardware and time: two CPU cores, about 40 minutes of CPU, which is an estimate.
Expected: unknown, since it has not been run to its end yet.
"""

from configs import palette_shapes


def get_config():
    config = palette_shapes.get_config()
    config.data.update(source="npz:emoji.npz")
    del config.data.rename["object_mask"]
    config.evaluate.update(num=160, batch_size=40)
    return config
