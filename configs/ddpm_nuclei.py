"""An unconditional DDPM of nuclei at 64 pixels, whose features configs/segmentation_nuclei.py reads.

Paper: Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; Baranchuk et al. 2022, "Label-Efficient Semantic
    Segmentation with Diffusion Models", for which it is trained.
Command: python main.py --config=configs/ddpm_nuclei.py --workdir=runs/ddpm_nuclei
Data: nuclei.npz, with train_images (uint8 [N, 64, 64, 3]), train_masks (uint8 [N, 64, 64]: 1 on nuclei) and the same of
    test. docs/segmentation.md makes it from the images of the 2018 Data Science Bowl (BBBC038, CC0).
Hardware and time: one CPU core, 20 minutes.
Expected: a denoising loss of 0.030. configs/segmentation_nuclei.py says what its features are worth; after 4,000
    images, 3 minutes, they are worth nearly as much (docs/segmentation.md).
"""

from configs import ddpm_scenes


def get_config():
    config = ddpm_scenes.get_config()
    config.method.network.attention_resolutions = ()
    config.data.update(source="npz:nuclei.npz", resolution=64, flip=True)
    config.train.update(batch_size=16, total_images=32_000, log_every_images=2_000, checkpoint_every_images=8_000)
    config.evaluate.update(real=300)
    return config
