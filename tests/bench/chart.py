"""A bar chart as SVG, readable on light and dark pages."""

from collections.abc import Sequence
from html import escape

WIDTH, ROW, LABELS, FIGURES = 760, 34, 240, 170
_STYLE = """<style>
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .note { font-size: 12px; fill: #59636e }
  .bar { fill: #8c959f } .own { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 } .bar { fill: #6e7681 } .own { fill: #4493f8 }
  }
</style>"""


def bars(title: str, rows: Sequence[tuple[str, float, str]], note: str, own: str) -> str:
    """The chart.

    Args:
        rows: label, length in any unit, and the figure to print beside the bar.
        own: labels that begin with it are highlighted.
    """
    height = 44 + ROW * len(rows) + 26
    longest = max(length for _, length, _ in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        f'     role="img" aria-label="{escape(title)}">',
        _STYLE,
        f'<text x="0" y="20" font-weight="600">{escape(title)}</text>',
    ]
    for number, (label, length, figure) in enumerate(rows):
        y = 40 + ROW * number
        width = max(1.0, (WIDTH - LABELS - FIGURES) * length / longest)
        kind = "own" if label.startswith(own) else "bar"
        parts += [
            f'<text x="{LABELS - 12}" y="{y + 17}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{width:.1f}" height="24" rx="3"/>',
            f'<text x="{LABELS + width + 8:.1f}" y="{y + 17}">{escape(figure)}</text>',
        ]
    parts += [f'<text class="note" x="0" y="{height - 8}">{escape(note)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"
