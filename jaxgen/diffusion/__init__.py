"""The mathematics of noise: schedules, predictions, losses, samplers. No network, no data, no config.

Time runs from data at 0 to noise at 1; `x_t = alpha(t) x_0 + sigma(t) epsilon`. A *denoiser* is any function
`(x, t) -> Prediction`; a sampler takes one, so ten lines sample from any network:

    schedule = jaxgen.diffusion.schedule.linear()
    denoise = jaxgen.diffusion.prediction.denoiser(schedule, "epsilon", network)
    images = jaxgen.diffusion.samplers.ddim.DDIM(steps=50)(denoise, schedule, x, keys)
"""
