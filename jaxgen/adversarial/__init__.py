"""The mathematics of the two-player game: losses, penalties, regularisers, augmentation, diagnostics.

No network, no data, no config. A discriminator is any function from images to logits, high on real images:

    loss = losses.Hinge()
    on_real, on_fake = loss.discriminator(discriminator(real), discriminator(fake))     # [B], [B]
    total = (on_real + on_fake).mean() + gamma * penalties.r1(discriminator, real).mean()
"""
