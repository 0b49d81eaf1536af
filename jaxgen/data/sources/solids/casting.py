"""Casts rays at five solids in closed form, and gives their signed distances; all in NumPy.

Every solid is given at its own scale, with its centre between its top and its bottom: a sphere of radius 1, a cube with
half a side of .9, a cone and a cylinder from z = -1 to z = 1 with radii 1 and .85, and a lying torus whose tube, of
radius .27, runs at .75 from the axis. `Placed` gives each a size, a place and a turn about the vertical.

Rays are met in the solid's own axes with a direction that is scaled along, so that the ray's parameter keeps its
meaning. The torus, whose equation is of degree four, is marched along its signed distance (Hart 1996, sphere tracing)
and finished by Newton's method; all others are solved.
"""

from __future__ import annotations

import dataclasses

import numpy as np

CUBE, CYLINDER = 0.9, 0.85
MAJOR, MINOR = 0.75, 0.27
SLOPE = np.sqrt(5.0)  # length of (2, 1): the cone's radius shrinks by one over a height of two
NAMES = ("cube", "sphere", "cone", "cylinder", "torus")
HALF_HEIGHTS = {"cube": CUBE, "sphere": 1.0, "cone": 1.0, "cylinder": 1.0, "torus": MINOR}
BOUNDS = {
    "cube": CUBE * np.sqrt(3),
    "sphere": 1.0,
    "cone": np.sqrt(2),
    "cylinder": np.hypot(1, CYLINDER),
    "torus": MAJOR + MINOR,
}  # radius of a ball around the centre that holds the solid
STEPS, NEWTON, TOLERANCE = 60, 3, 1e-4  # of the march along the torus's distance

Points = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y and z, each [N]


@dataclasses.dataclass(frozen=True)
class Placed:
    """Describes one solid in the world: it is turned about z, scaled and moved along z.

    Attributes:
      name: one of NAMES.
      size: the scale.
      height: z of its centre.
      turn: the angle about z, in radians.
    """

    name: str
    size: float
    height: float = 0.0
    turn: float = 0.0

    def _own(self, vectors: np.ndarray, origin: float) -> Points:
        """Returns vectors `[..., 3]` in the solid's own axes, less `origin` along z."""
        cos, sin = np.cos(self.turn) / self.size, np.sin(self.turn) / self.size
        x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
        return cos * x + sin * y, cos * y - sin * x, (z - origin) / self.size

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Returns the signed distance `[...]` of points `[..., 3]` to the surface, negative inside."""
        return self.size * _DISTANCES[self.name](*self._own(points, self.height))

    def cast(self, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns where rays from outside first meet the solid.

        Args:
          origin: `[3]`, where all rays begin.
          directions: `[N, 3]`, of length one.

        Returns:
          The distance `[N]` along each ray, infinite where it passes by, and the outward normal `[N, 3]` there.
        """
        far, normals = np.full(len(directions), np.inf), np.zeros((len(directions), 3))
        offset = origin - (0, 0, self.height)
        along = directions @ offset
        near = np.flatnonzero(along**2 - offset @ offset + (BOUNDS[self.name] * self.size) ** 2 >= 0)
        if not near.size:
            return far, normals
        starts = np.broadcast_to(origin, (1, 3))
        (ox, oy, oz), d = self._own(starts, self.height), self._own(directions[near], 0.0)
        far[near] = _CASTS[self.name](float(ox[0]), float(oy[0]), float(oz[0]), *d)
        met = near[np.isfinite(far[near])]
        at = self._own(origin + far[met, None] * directions[met], self.height)
        x, y, z = _NORMALS[self.name](*at)
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        normals[met] = np.stack([cos * x - sin * y, sin * x + cos * y, z], -1)
        return far, normals


def stacked(upper: str, upper_size: float, lower: str, lower_size: float) -> tuple[float, float]:
    """Returns the heights of the centres of one solid that rests on another, with the whole between -h and h.

    A solid rests on the highest point of the other, but a ring slips over a sphere and over a cone, and a sphere sinks
    into a ring, until they touch.
    """
    rise = upper_size * HALF_HEIGHTS[upper] + lower_size * HALF_HEIGHTS[lower]
    if {upper, lower} == {"torus", "sphere"}:
        ring, ball = (upper_size, lower_size) if upper == "torus" else (lower_size, upper_size)
        rise = float(np.sqrt((ball + MINOR * ring) ** 2 - (MAJOR * ring) ** 2))
    elif (upper, lower) == ("torus", "cone"):  # the tube's distance to the cone's side is its radius
        rise = lower_size + upper_size * float(SLOPE * MINOR - 2 * MAJOR)
    bottoms = (rise - upper_size * HALF_HEIGHTS[upper], -lower_size * HALF_HEIGHTS[lower])
    tops = (rise + upper_size * HALF_HEIGHTS[upper], lower_size * HALF_HEIGHTS[lower])
    middle = (min(bottoms) + max(tops)) / 2
    return rise - middle, -middle


# Where rays o + t d first meet each solid. Rays begin outside, and t counts forwards only.


def _first(*hits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Returns the smallest t of those that are valid and ahead; infinity where there is none."""
    return np.min([np.where(valid & (t > 0), t, np.inf) for t, valid in hits], axis=0)


def _roots(a: np.ndarray, half_b: np.ndarray, c: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns both roots of a t^2 + 2 half_b t + c, and where they are real."""
    square = half_b * half_b - a * c
    root = np.sqrt(np.maximum(square, 0))
    return (-half_b - root) / a, (-half_b + root) / a, square >= 0


def _cast_sphere(ox: float, oy: float, oz: float, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> np.ndarray:
    a, b = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz
    t, _, real = _roots(a, b, ox * ox + oy * oy + oz * oz - 1)
    return _first((t, real))


def _cast_cube(ox: float, oy: float, oz: float, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> np.ndarray:
    entry, leave = np.full(len(dx), -np.inf), np.full(len(dx), np.inf)
    for o, d in ((ox, dx), (oy, dy), (oz, dz)):
        low, high = (-CUBE - o) / d, (CUBE - o) / d
        entry, leave = np.maximum(entry, np.minimum(low, high)), np.minimum(leave, np.maximum(low, high))
    return _first((entry, entry <= leave))


def _cast_cylinder(ox: float, oy: float, oz: float, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> np.ndarray:
    side, _, real = _roots(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - CYLINDER**2)
    hits = [(side, real & (np.abs(oz + side * dz) <= 1))]
    return _first(*hits, *(_cap(ox, oy, oz, dx, dy, dz, z, CYLINDER) for z in (-1, 1)))


def _cast_cone(ox: float, oy: float, oz: float, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> np.ndarray:
    # x^2 + y^2 = ((1 - z) / 2)^2, of which only the half below the tip is meant
    h, s = (1 - oz) / 2, -dz / 2
    a, half_b, c = dx * dx + dy * dy - s * s, ox * dx + oy * dy - h * s, ox * ox + oy * oy - h * h
    near, far, real = _roots(np.where(np.abs(a) < 1e-12, 1e-12, a), half_b, c)
    hits = [(t, real & (np.abs(oz + t * dz) <= 1)) for t in (near, far)]
    return _first(*hits, _cap(ox, oy, oz, dx, dy, dz, -1, 1.0))


def _cap(
    ox: float, oy: float, oz: float, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray, z: float, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where rays meet a level disc about the axis."""
    t = (z - oz) / dz
    return t, (ox + t * dx) ** 2 + (oy + t * dy) ** 2 <= radius**2


def _cast_torus(ox: float, oy: float, oz: float, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> np.ndarray:
    # the march goes from where a ray enters the smallest upright cylinder around the ring to where it leaves that
    slab = (-MINOR - oz) / dz, (MINOR - oz) / dz
    enter, leave, real = _roots(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - (MAJOR + MINOR) ** 2)
    t, last = np.maximum(np.minimum(*slab), enter), np.minimum(np.maximum(*slab), leave)
    found, scale = np.full(len(dx), np.inf), np.sqrt(dx * dx + dy * dy + dz * dz)
    rays = np.flatnonzero(real & (t <= last) & (last > 0))
    t, last, x, y, z, scale = np.maximum(t, 0)[rays], last[rays], dx[rays], dy[rays], dz[rays], scale[rays]
    for _ in range(STEPS):
        gap = _torus(ox + t * x, oy + t * y, oz + t * z)
        done = gap < TOLERANCE
        found[rays[done]] = t[done]
        on = ~done & (t + gap / scale <= last)
        if not on.any():
            break
        t, rays = (t + gap / scale)[on], rays[on]
        last, x, y, z, scale = last[on], x[on], y[on], z[on], scale[on]
    met = np.flatnonzero(np.isfinite(found))
    t, x, y, z = found[met], dx[met], dy[met], dz[met]
    for _ in range(NEWTON):
        at = ox + t * x, oy + t * y, oz + t * z
        slope = sum(n * d for n, d in zip(_normal_torus(*at), (x, y, z), strict=True))
        t = t - _torus(*at) / np.minimum(slope, -1e-2)  # rays enter here; where one only grazes, it moves little
    found[met] = t
    return found


# Signed distances, negative inside; for solids of revolution, to the profile in the plane of the axis and the point.


def _box(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the signed distance to a corner from its distances to the two sides."""
    return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0)


def _sphere(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y + z * z) - 1


def _cube(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    a = np.stack([np.abs(x), np.abs(y), np.abs(z)]) - CUBE
    return np.linalg.norm(np.maximum(a, 0), axis=0) + np.minimum(a.max(0), 0)


def _cylinder(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _box(np.hypot(x, y) - CYLINDER, np.abs(z) - 1)


def _cone(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    radius = np.hypot(x, y)
    along = np.clip((radius - 2 * (z - 1)) / 5, 0, 1)  # share of the side, from the tip (0, 1) to the rim (1, -1)
    side = np.hypot(radius - along, z - 1 + 2 * along)
    base = np.hypot(np.maximum(radius - 1, 0), z + 1)
    inside = (z > -1) & (2 * radius + z < 1)
    return np.where(inside, -1, 1) * np.minimum(side, base)


def _torus(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.sqrt((np.sqrt(x * x + y * y) - MAJOR) ** 2 + z * z) - MINOR


# Outward normals of points on the surface.


def _normal_sphere(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Points:
    return x, y, z


def _normal_cube(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Points:
    axis = np.argmax(np.abs([x, y, z]), axis=0)
    return tuple(np.where(axis == i, np.sign(a), 0.0) for i, a in enumerate((x, y, z)))  # type: ignore[return-value]


def _normal_cylinder(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Points:
    radius = np.hypot(x, y)
    cap = np.abs(z) - 1 > radius - CYLINDER
    return np.where(cap, 0, x / radius), np.where(cap, 0, y / radius), np.where(cap, np.sign(z), 0)


def _normal_cone(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Points:
    radius = np.maximum(np.hypot(x, y), 1e-12)
    base = z + 1 < np.abs(2 * radius + z - 1) / SLOPE
    return tuple(np.where(base, b, a) for a, b in (  # type: ignore[return-value]
        (2 / SLOPE * x / radius, 0.0), (2 / SLOPE * y / radius, 0.0), (1 / SLOPE, -1.0)))  # fmt: skip


def _normal_torus(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Points:
    radius = np.sqrt(x * x + y * y)
    out = radius - MAJOR
    length = np.sqrt(out * out + z * z)
    return x / radius * out / length, y / radius * out / length, z / length


_DISTANCES = {"cube": _cube, "sphere": _sphere, "cone": _cone, "cylinder": _cylinder, "torus": _torus}
_CASTS = {
    "cube": _cast_cube,
    "sphere": _cast_sphere,
    "cone": _cast_cone,
    "cylinder": _cast_cylinder,
    "torus": _cast_torus,
}
_NORMALS = {
    "cube": _normal_cube,
    "sphere": _normal_sphere,
    "cone": _normal_cone,
    "cylinder": _normal_cylinder,
    "torus": _normal_torus,
}
