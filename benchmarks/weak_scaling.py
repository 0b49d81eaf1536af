"""Computes weak scaling on paper: what each device computes, sends and holds when batch and machine grow together.

    python -m benchmarks.weak_scaling --config=configs/dit_digits.py --each=8 --most=64

Compiles the config's real update for 1, 2, 4, ... virtual CPU devices with `--each` images on every one of them, once
as data parallelism and once as FSDP over all of them, and runs nothing. Prints a Markdown table of FLOPs, bytes sent by
kind of collective and bytes of state, all of one device, and draws them. `--out` keeps each result; a second call goes
on where the first ended.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import Annotated, Any

from jaxgen.config import check
from jaxgen.config.files import load_config
from jaxgen.planning.topology import devices, use_topology
from jaxgen.report.charts import Axis
from jaxgen.report.numbers import number, ticks
from jaxgen.report.plan import size
from studies import harness

LAYOUTS = ("data parallel", "FSDP")
PANEL, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 270, 52, 14, 30, 46
COLOURS = ("#1f6fb4", "#c8501e", "#2a8a3e", "#8a4fb0", "#777777")


def measure(path: Path, count: int, layout: str, each: int) -> dict[str, Any]:
    """Returns one compilation's numbers, of one device."""
    from jaxgen.planning.programs import job_of

    config, _ = load_config(path)
    config.train.batch_size = each * count
    config.mesh.update(data=0, fsdp=count if layout == "FSDP" else 1)
    check(config)
    job = job_of(config, devices(f"cpu:{count}"))
    update = job.update()
    sent = {kind: entry["moved"] for kind, entry in update.collectives.items()}
    state = sum(job.parts().values())
    return {"devices": count, "layout": layout, "flops": update.flops, "sent": sent, "state": state}


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as Markdown."""
    kinds = sorted({kind for row in rows for kind in row["sent"]})
    heads = ["devices", "layout", "MFLOP", *(f"{kind}, sent" for kind in kinds), "state"]
    lines = []
    for row in rows:
        sent = [size(row["sent"].get(kind, 0)) for kind in kinds]
        lines.append([row["devices"], row["layout"], number(row["flops"] / 1e6), *sent, size(row["state"])])
    return harness.table(heads, lines)


def chart(rows: list[dict[str, Any]], what: str) -> str:
    """Draws three panels as SVG: FLOPs, bytes sent and bytes of state of one device against the number of devices."""
    kinds = sorted({(LAYOUTS.index(row["layout"]), kind) for row in rows for kind in row["sent"]})

    def curve(layout: str, value: Any) -> list[tuple[int, float]]:
        return [(row["devices"], value(row)) for row in rows if row["layout"] == layout]

    panels = {
        "MFLOP": {layout: curve(layout, lambda row: row["flops"] / 1e6) for layout in LAYOUTS},
        "MB sent": {
            f"{LAYOUTS[i]}: {kind}": curve(LAYOUTS[i], lambda row, kind=kind: row["sent"].get(kind, 0) / 1e6)
            for i, kind in kinds
        },
        "MB of state": {layout: curve(layout, lambda row: row["state"] / 1e6) for layout in LAYOUTS},
    }
    drawn = [_panel(title, curves, i * PANEL) for i, (title, curves) in enumerate(panels.items())]
    height = HEIGHT + 8 + 16 * max(map(len, panels.values()))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PANEL * len(panels)} {height}" role="img" '
    head += f'aria-label="{escape(what)}" font-family="sans-serif" font-size="12">'
    return f'{head}<rect width="100%" height="100%" fill="white"/>{"".join(drawn)}</svg>\n'


def _panel(title: str, curves: dict[str, list[tuple[int, float]]], shift: int) -> str:
    counts = sorted({count for curve in curves.values() for count, _ in curve})
    most = max(value for curve in curves.values() for _, value in curve) or 1.0
    across = Axis(counts[0], max(counts[-1], 2), shift + LEFT, shift + PANEL - RIGHT, log=True)
    up = Axis(0, 1.1 * most, HEIGHT - BOTTOM, TOP)
    parts = [f'<text x="{shift + LEFT}" y="{TOP - 12}" font-weight="bold">{escape(title)}, on one device</text>']
    for value in ticks(0, 1.1 * most, 4):
        y = float(up(value))
        parts.append(f'<path d="M{shift + LEFT} {y:.1f}H{shift + PANEL - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{shift + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for count in counts:
        x = float(across(count))
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{count}</text>')
    middle = shift + (LEFT + PANEL - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - BOTTOM + 34}" text-anchor="middle">devices</text>')
    for i, ((name, curve), colour) in enumerate(zip(curves.items(), COLOURS, strict=False)):
        line = "L".join(f"{float(across(a)):.1f} {float(up(b)):.1f}" for a, b in curve)
        dash = "" if name.startswith(LAYOUTS[0]) else ' stroke-dasharray="6 3"'  # both are seen where they meet
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        y = HEIGHT + 8 + 16 * i
        parts.append(f'<path d="M{shift + LEFT} {y - 4}h22" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{shift + LEFT + 28}" y="{y}">{escape(name)}</text>')
    return "".join(parts)


def main(
    config: Path = Path("configs/dit_digits.py"),
    each: Annotated[int, "images on every device"] = 8,
    most: Annotated[int, "devices"] = 64,
    out: Annotated[str, "a file that keeps the results, a line of JSON each"] = "",
    chart_file: Path = Path("docs/gallery/weak_scaling.svg"),
) -> None:
    use_topology(f"cpu:{most}")
    rows = harness.Rows(Path(out) if out else None)
    for count in (2**i for i in range(most.bit_length()) if 2**i <= most):
        for layout in LAYOUTS:
            key = {"devices": count, "layout": layout}
            rows.get(key, lambda count=count, layout=layout: measure(config, count, layout, each))
    print(table(list(rows)))
    chart_file.parent.mkdir(parents=True, exist_ok=True)
    chart_file.write_text(chart(list(rows), f"Weak scaling of {config.stem}, {each} images a device"))
    print(f"wrote {chart_file}")


if __name__ == "__main__":
    sys.exit(harness.run(main))
