"""Masks of nuclei from 20 labelled images of 64 pixels and a diffusion model's features.

Paper: Baranchuk et al. 2022, "Label-Efficient Semantic Segmentation with Diffusion Models".
Command: python main.py --config=configs/ddpm_nuclei.py --workdir=runs/ddpm_nuclei, then
    python main.py --config=configs/segmentation_nuclei.py --workdir=runs/segmentation_nuclei
Data: nuclei.npz, see configs/ddpm_nuclei.py.
Hardware and time: two CPU cores, 3 minutes of CPU with the evaluation of 50 images.
Expected: a mean IoU of 0.804 with 20 labelled images (three seeds, 396 held-out images), between 0.748 and 0.860 by
    which images these are. Raw pixels have 0.738, a U-Net with random weights 0.792 (docs/segmentation.md).
"""

from configs import segmentation_shapes


def get_config():
    config = segmentation_shapes.get_config()
    config.method.classes = 2  # the ground, and nuclei
    config.init_from.pretrained = "runs/ddpm_nuclei"
    config.data.update(source="npz:nuclei.npz", resolution=64)
    config.evaluate.update(num=200, real=200)
    return config
