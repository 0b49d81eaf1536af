"""This room holds the mathematics of noise: schedules, prediction types, weightings, losses, samplers, guidance.

There is no network, no data and no config in this room. Times have these names:

    t        a time in [0, 1], from data at 0 to noise at 1: a scalar or `[B]`; `x_t = alpha(t) x_0 + sigma(t) epsilon`
    s        the time that a step leads to, s < t
    times    `[steps + 1]` the decreasing times of a sampler, in NumPy
    time     `[B]` the number that a network embeds, 0..999: `schedule.conditioning(t)`

A *denoiser* is any function `(x, t) -> Prediction`; a sampler takes one, so a few lines sample from any network:

    schedule = jaxgen.diffusion.schedules.Linear()
    denoise = jaxgen.diffusion.prediction.denoiser(schedule, Epsilon(), network)
    images = jaxgen.diffusion.samplers.ddim.DDIM(steps=50)(denoise, schedule, x, keys)
"""
