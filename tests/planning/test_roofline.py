"""Seconds of a program from a chip's numbers."""

from __future__ import annotations

from jaxgen.planning import hlo, roofline


def test_the_roofline_is_the_longest_roof():
    chip = roofline.Chip("toy", flops=100.0, memory=1e9, bandwidth=10.0, link=8.0, dims=2, source="here")
    gather = hlo.Collective("all-gather", 80.0, 4)  # 60 bytes from each device, at 4 a second
    found = roofline.estimate(200.0, 50.0, [gather], chip)
    assert (found.compute, found.memory, found.network) == (2.0, 5.0, 15.0)
    assert (found.bound, found.least, found.most) == ("network", 15.0, 22.0)
