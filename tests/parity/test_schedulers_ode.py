"""Final samples of diffusers' schedulers: the same network, noise and grid, float32.

Our solvers are given the peer's own noise levels as `times`. What differs, and is left to the peer:

- its grids: `leading` begins below t = 1; Karras levels have timesteps rounded for the network, so that the
  network here is told the level, not the peer's timestep;
- DDIM steps by 1000 // steps whatever its timesteps, so that `linspace` is not a grid that it walks on;
- DDPM with fixed_large adds noise in its last step where that is not timestep 0 (`trailing`); ours never does;
- UniPC with bh1, and without lower_order_final, ends in NaN where the last level has no noise: compared to a level
  that has some;
- third order multistep takes half the curvature (`half_curvature`); singlestep looks at points of its grid, which
  lie evenly in lambda only where its levels do (`use_exponential_sigmas`).
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from jaxgen.diffusion import schedules  # noqa: E402
from jaxgen.diffusion.noise import per_image_noise  # noqa: E402
from jaxgen.diffusion.prediction import Prediction  # noqa: E402
from jaxgen.diffusion.prediction_types import Epsilon, V, Velocity  # noqa: E402
from jaxgen.diffusion.samplers.ddim import DDIM  # noqa: E402
from jaxgen.diffusion.samplers.ddpm import DDPM  # noqa: E402
from jaxgen.diffusion.samplers.dpmpp import DPMpp1S, DPMpp2M, DPMpp3M  # noqa: E402
from jaxgen.diffusion.samplers.runge_kutta import Euler, Heun  # noqa: E402
from jaxgen.diffusion.samplers.unipc import UniPC  # noqa: E402

pytestmark = pytest.mark.parity

SHAPE = (6, 2, 2, 1)
KEYS = jax.random.split(jax.random.key(5), SHAPE[0])
WEIGHT = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32) / 2
LINEAR = schedules.Linear()
FLOW = schedules.RectifiedFlow()
TYPES = {"epsilon": Epsilon(), "v": V(), "velocity": Velocity()}
KINDS = {"epsilon": "epsilon", "v": "v_prediction", "velocity": "flow_prediction"}
# the peer's grids; `spaced` are its Karras levels
GRIDS = {
    "leading": {"timestep_spacing": "leading"},
    "linspace": {"timestep_spacing": "linspace"},
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
}


def network(np_, x, t, alpha, sigma, kind):
    """One function for both: v is a small mixing of the values; epsilon is what it says about the noise."""
    v = np_.tanh(x.reshape(SHAPE[0], -1) @ np_.asarray(WEIGHT) + t).reshape(x.shape)
    return sigma * x + alpha * v if kind == "epsilon" else v


def ours(sampler, schedule, kind, x, times, learned=False):
    def denoise(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        alpha, sigma = schedule.alpha(t[0]), schedule.sigma(t[0])
        log_variance = jnp.sin(3 * x) if learned else None
        return Prediction(network(jnp, x, t[0], alpha, sigma, kind), x, t, schedule, TYPES[kind], log_variance)

    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(lambda x: sampler(denoise, schedule, x, KEYS, times=times))(x))


def theirs(scheduler, schedule, kind, x, times, sigma_space=False, learned=False, **options):
    """`times` of the evaluations. Schedulers in sigma space hold x / alpha."""
    sample = torch.from_numpy(np.array(x).reshape(SHAPE[0], 1, 2, 2))
    if sigma_space:
        sample = sample / float(schedule.alpha(times[0]))
    for i, t in enumerate(scheduler.timesteps):
        look = scheduler.scale_model_input(sample, t) if hasattr(scheduler, "scale_model_input") else sample
        alpha, sigma = (torch.tensor(float(f(times[i]))) for f in (schedule.alpha, schedule.sigma))
        out = network(torch, look, torch.tensor(float(times[i])), alpha, sigma, kind)
        if learned:
            out = torch.cat([out, torch.sin(3 * look)], dim=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sample = scheduler.step(out, t, sample, **options).prev_sample
    return sample.numpy().reshape(SHAPE)


def build(name, kind="epsilon", **fields):
    defaults = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": KINDS[kind]}
    return getattr(diffusers, name)(**{**defaults, **fields})


def precise(scheduler):
    """The peer with alpha_bar in float64: in float32 its 1 - alpha_bar of level 1 is off by 1e-4, which is then
    the last level; our schedule has that level, and takes a time so near to be it."""
    scheduler.alphas_cumprod = torch.from_numpy(np.exp(LINEAR.log_alpha_bar[1:]))
    return scheduler


def levels(scheduler, schedule=LINEAR):
    """Times of the peer's sigmas, which are sigma / alpha; 0 at the end."""
    sigmas = scheduler.sigmas.double().numpy()
    with np.errstate(divide="ignore"):
        return schedule.t_from_log_snr(-2 * np.log(sigmas))


def start(schedule=LINEAR):
    return np.asarray(per_image_noise(KEYS, 0, SHAPE[1:]), np.float32)


def agree(a, b):
    assert np.abs(a).max() > 0.1
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.fixture
def same_noise(monkeypatch):
    """Feeds the peer the noise that our solver draws for its row i."""
    rows = iter(range(10_000))

    def draw(shape, **_):
        z = np.asarray(per_image_noise(KEYS, next(rows) + 1, SHAPE[1:]))
        return torch.from_numpy(z.reshape(tuple(shape)).copy())

    for module in ("scheduling_ddpm", "scheduling_ddim"):
        monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", draw)


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("grid", ["leading", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim(kind, grid, eta, same_noise):
    scheduler = build("DDIMScheduler", kind, timestep_spacing=grid)
    scheduler.set_timesteps(20)
    times = np.append((scheduler.timesteps.numpy() + 1) / 1000, 0.0)
    want = theirs(scheduler, LINEAR, kind, start(), times, eta=eta, use_clipped_model_output=True)
    agree(ours(DDIM(eta=eta), LINEAR, kind, start(), times), want)


def test_ddim_from_pure_noise(same_noise):
    schedule = schedules.Linear(zero_terminal_snr=True)
    scheduler = build("DDIMScheduler", "v", timestep_spacing="trailing", rescale_betas_zero_snr=True)
    scheduler.set_timesteps(20)
    times = np.append((scheduler.timesteps.numpy() + 1) / 1000, 0.0)
    want = theirs(scheduler, schedule, "v", start(), times, use_clipped_model_output=True)
    agree(ours(DDIM(), schedule, "v", start(), times), want)
    agree(ours(Euler(clip=True), schedule, "v", start(), times), want)


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("grid", ["leading", "linspace"])
def test_ddpm(variance, grid, same_noise):
    peer = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance]
    scheduler = build("DDPMScheduler", variance_type=peer, timestep_spacing=grid)
    scheduler.set_timesteps(20)
    times = np.append((scheduler.timesteps.numpy() + 1) / 1000, 0.0)
    want = theirs(scheduler, LINEAR, "epsilon", start(), times, learned=variance == "learned")
    got = ours(DDPM(variance=variance), LINEAR, "epsilon", start(), times, learned=variance == "learned")
    agree(got, want)


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("peer", "sampler"), [("EulerDiscreteScheduler", Euler()), ("HeunDiscreteScheduler", Heun())])
def test_euler_and_heun(peer, sampler, kind, grid):
    scheduler = build(peer, kind, **GRIDS[grid])
    scheduler.set_timesteps(12)
    at = levels(scheduler)
    times = at if peer.startswith("Euler") else np.append(at[:1], at[1:-1:2].tolist() + [0.0])
    want = theirs(scheduler, LINEAR, kind, start(), at, sigma_space=True)
    agree(ours(sampler, LINEAR, kind, start(), times), want)


MULTISTEP = {1: DPMpp1S(), 2: DPMpp2M(), 3: DPMpp3M(half_curvature=True)}


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [10, 20])
def test_dpm_solver_multistep(order, kind, grid, steps):
    scheduler = build("DPMSolverMultistepScheduler", kind, solver_order=order, **GRIDS[grid])
    scheduler.set_timesteps(steps)
    times = levels(scheduler)
    agree(ours(MULTISTEP[order], LINEAR, kind, start(), times), theirs(scheduler, LINEAR, kind, start(), times))


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("order", [2, 3])
def test_dpm_solver_multistep_to_a_level_with_noise(order, final):
    fields = {"lower_order_final": final, "final_sigmas_type": "sigma_min"}
    scheduler = precise(build("DPMSolverMultistepScheduler", solver_order=order, **GRIDS["trailing"], **fields))
    scheduler.set_timesteps(10)
    times = levels(scheduler)
    sampler = {2: DPMpp2M, 3: DPMpp3M}[order](
        lower_order_final=final, **({"half_curvature": True} if order == 3 else {})
    )
    got = ours(sampler, LINEAR, "epsilon", start(), times)
    agree(got, theirs(scheduler, LINEAR, "epsilon", start(), times))


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize(("order", "evaluations"), [(1, 9), (2, 9), (3, 10)])
def test_dpm_solver_singlestep(order, evaluations, kind):
    scheduler = build("DPMSolverSinglestepScheduler", kind, solver_order=order, use_exponential_sigmas=True)
    scheduler.set_timesteps(evaluations)
    at = levels(scheduler)
    times = np.append(at[:-1][::order], 0.0)
    got = ours(DPMpp1S(order=order), LINEAR, kind, start(), times)
    assert DPMpp1S(len(times) - 1, order=order).evaluations == evaluations
    agree(got, theirs(scheduler, LINEAR, kind, start(), at))


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(order, grid, kind):
    scheduler = build("UniPCMultistepScheduler", kind, solver_order=order, **GRIDS[grid])
    scheduler.set_timesteps(10)
    times = levels(scheduler)
    agree(ours(UniPC(order=order), LINEAR, kind, start(), times), theirs(scheduler, LINEAR, kind, start(), times))


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("grid", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("corrector", [True, False])
def test_unipc_to_a_level_with_noise(corrector, order, grid, variant):
    fields = {"solver_order": order, "solver_type": variant, "final_sigmas_type": "sigma_min"}
    fields |= {"lower_order_final": False, "disable_corrector": [] if corrector else list(range(20))}
    scheduler = precise(build("UniPCMultistepScheduler", "v", **fields, **GRIDS[grid]))
    scheduler.set_timesteps(10)
    times = levels(scheduler)
    sampler = UniPC(order=order, variant=variant, corrector=corrector, lower_order_final=False)
    agree(ours(sampler, LINEAR, "v", start(), times), theirs(scheduler, LINEAR, "v", start(), times))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_euler(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(12)
    times = scheduler.sigmas.double().numpy()  # sigma is the time on straight paths
    want = theirs(scheduler, FLOW, "velocity", start(), times)
    agree(ours(Euler(variable="time"), FLOW, "velocity", start(), times), want)
    agree(ours(Euler(), FLOW, "velocity", start(), times), want)
    shifted = schedules.RectifiedFlow(shift=shift)
    again = np.append(shifted.t_from_log_snr(FLOW.log_snr(times[:-1])), 0.0)
    np.testing.assert_allclose(shifted.sigma(again), times, atol=1e-12)


@pytest.mark.parametrize(
    ("peer", "sampler"),
    [
        ("DPMSolverMultistepScheduler", DPMpp2M()),
        ("UniPCMultistepScheduler", UniPC()),
    ],
)
def test_exponential_solvers_on_straight_paths(peer, sampler):
    scheduler = build(peer, "velocity", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.set_timesteps(10)
    times = scheduler.sigmas.double().numpy()
    agree(ours(sampler, FLOW, "velocity", start(), times), theirs(scheduler, FLOW, "velocity", start(), times))
