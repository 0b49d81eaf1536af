"""The mathematics of the two-player game: losses, penalties, regularisers, augmentation, diagnostics.

No network, no data, no config. The critic is high on real. A critic is any function from images to logits:

    loss = losses.Hinge()
    on_real, on_fake = loss.discriminator(critic(real), critic(fake))     # [B], [B]
    total = (on_real + on_fake).mean() + gamma * penalties.r1(critic, real).mean()
"""
