"""A small U-Net that finds nuclei at 64 pixels: ground, rim and core, from which a watershed tells them apart.

Paper: Ronneberger et al. 2015, "U-Net", for the network; the layers are steps of each nucleus's distance map.
Command: python main.py --config=configs/segmenter_nuclei.py --workdir=runs/segmenter_nuclei, or
    python -m studies.nuclei, which makes the data, trains it on few and on many nuclei, and counts objects
Data: nuclei_layers.npz, with train_images (uint8 [N, 64, 64, 3]), train_masks (0, 1 or 2) and the same of test, as
    python -m studies.nuclei writes them from images with a map of instances.
Hardware and time: not recorded yet.
Expected: not recorded yet.
"""

from configs import segmenter_shapes


def get_config():
    config = segmenter_shapes.get_config()
    config.data.update(source="npz:nuclei_layers.npz", resolution=64, flip=True)
    config.evaluate.update(num=396, real=396, batch_size=44)
    return config
