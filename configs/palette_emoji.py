"""One Palette for six tasks on emoji at 64 pixels: colour, JPEG, three kinds of holes and uncropping.

Paper: Saharia et al. 2022, "Palette: Image-to-Image Diffusion Models".
Command: python main.py --config=configs/palette_emoji.py --workdir=runs/palette_emoji
Data: an npz of pictures, as in configs/kl_autoencoder_emoji.py; another source by --config.data.source.
Hardware and time: one CPU core; 13 minutes for 26,000 images (--config.train.total_images=26000).
Expected: after these, feature distances to the truth of 0.43 to 1.41 (docs/palette.md#numbers-on-emoji).
"""

from configs import palette_shapes


def get_config():
    config = palette_shapes.get_config()
    config.data.update(source="npz:emoji.npz")
    del config.data.rename["object_mask"]
    config.evaluate.update(num=160, batch_size=40)
    return config
