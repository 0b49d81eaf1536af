"""This room holds the mathematics of the two-player game: losses, penalties, regularisers, augmentation, diagnostics.

Nothing here knows of networks, data or configs. A discriminator is any function from images to logits that is high on
real images:

    loss = losses.Hinge()
    on_real, on_fake = loss.discriminator(discriminator(real), discriminator(fake))     # [B], [B]
    total = (on_real + on_fake).mean() + gamma * penalties.r1(discriminator, real).mean()
"""
