"""A masked autoencoder of nuclei under the microscope at 64 pixels: patches of 4 pixels, 3 of 4 missing.

Paper: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".
Command: python main.py --config=configs/mae_nuclei.py --workdir=runs/mae_nuclei
Data: nuclei.npz, see configs/ddpm_nuclei.py.
Hardware and time: one CPU core, 9 minutes.
Expected: a squared error of 0.783 over the missing patches of held-out images; the mean of the visible patches has
    0.792, and a copy of the nearest one 1.369. Most patches are dark ground, whose noise cannot be told: after 8,000
    images the error is 0.785.
"""

from configs import mae_shapes


def get_config():
    config = mae_shapes.get_config()
    config.data.update(source="npz:nuclei.npz", resolution=64, flip=True)
    config.train.update(batch_size=32, total_images=40_000, log_every_images=2_000, checkpoint_every_images=10_000)
    config.evaluate.update(real=300)
    return config
