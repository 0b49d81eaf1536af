"""A masked autoencoder of nuclei under the microscope at 64 pixels: patches of 4 pixels, 3 of 4 missing.

Paper: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".
Command: python main.py --config=configs/mae_nuclei.py --workdir=runs/mae_nuclei
Data: nuclei.npz, see configs/ddpm_nuclei.py.
Hardware and time: two CPU cores, 3 minutes on a machine with other work.
Expected: a squared error of 0.785 over the missing patches of held-out images; the mean of the visible patches has
    0.792, so that it has learned little yet, and a copy of the nearest one 1.369.
"""

from configs import mae_shapes


def get_config():
    config = mae_shapes.get_config()
    config.data.update(source="npz:nuclei.npz", resolution=64, flip=True)
    config.train.update(batch_size=32, total_images=8_000, log_every_images=2_000, checkpoint_every_images=4_000)
    config.evaluate.update(real=300)
    return config
