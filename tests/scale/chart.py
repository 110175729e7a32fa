"""A line chart as SVG, readable on light and dark pages."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 46, 210, 44, 60
LABEL = 16
COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bc4c00", "#57606a", "#bf3989", "#0a7b83", "#6e4a00")
_STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .note { font-size: 12px; fill: #59636e }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  polyline { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 } .grid { stroke: #3d444d }
  }
</style>"""


def lines(title: str, sizes: Sequence[int], series: Sequence[tuple[str, Sequence[float]]], note: str) -> str:
    """The chart: at each size, how much each thing costs relative to the first size."""
    top = max(1.5, *(value for _, values in series for value in values)) * 1.05
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(users: int) -> float:
        return LEFT + width * users / sizes[-1]

    def y(value: float) -> float:
        return TOP + height * (1 - value / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        f'     role="img" aria-label="{escape(title)}">',
        _STYLE,
        f'<text x="0" y="20" font-weight="600">{escape(title)}</text>',
    ]
    step = 0.5 if top < 4 else 1.0 if top < 8 else 5.0
    for number in range(int(top / step) + 1):
        at = y(number * step)
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + width}" y1="{at:.1f}" y2="{at:.1f}"/>',
            f'<text class="note" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{number * step:g}</text>',
        ]
    for users in sizes:
        at = TOP + height + 20
        parts.append(f'<text class="note" x="{x(users):.1f}" y="{at}" text-anchor="middle">{_size(users)}</text>')
    ends = _apart([y(values[-1]) for _, values in series])
    for number, (label, values) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x(users):.1f},{y(value):.1f}" for users, value in zip(sizes, values, strict=True))
        parts += [
            f'<polyline points="{points}" stroke="{colour}"/>',
            f'<line x1="{LEFT + width + 2}" y1="{y(values[-1]):.1f}" x2="{LEFT + width + 14}" y2="{ends[number]:.1f}"'
            f' stroke="{colour}"/>',
            f'<text x="{LEFT + width + 18}" y="{ends[number] + 4:.1f}">{values[-1]:.2f} {escape(label)}</text>',
        ]
    parts += [f'<text class="note" x="0" y="{HEIGHT - 10}">{escape(note)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def _apart(heights: Sequence[float]) -> list[float]:
    """Where to write each label, so that none lies on another."""
    places, last = [0.0] * len(heights), TOP - float(LABEL)
    for number in sorted(range(len(heights)), key=lambda n: heights[n]):
        last = places[number] = max(heights[number], last + LABEL)
    over = max(0.0, last - (HEIGHT - BOTTOM))
    return [place - over for place in places]


def _size(users: int) -> str:
    return f"{users / 1e6:g} million users" if users >= 5_000_000 else f"{users / 1e6:g}"
