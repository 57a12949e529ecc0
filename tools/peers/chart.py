"""Recall against queries/s, drawn as SVG. The recall axis is stretched towards 1, where the differences are."""

import math
from html import escape

from adapters import PEERS

# A colour for each library, a dash for each variant of it. Ours alone is bright.
LIGHT = {"tonnage": "#d9480f", "hnswlib": "#7d6b52", "faiss": "#4a6fa5", "faiss_ivfpq": "#2b8aa0", "usearch": "#5e8c4a",
         "voyager": "#a0883a", "svs": "#7e5aa8", "scann": "#b0527c", "hnsw_rs": "#6b7178"}
DARK = {"tonnage": "#ff8a4c", "hnswlib": "#b7a483", "faiss": "#82a7dc", "faiss_ivfpq": "#5fc0d6", "usearch": "#93c47d",
        "voyager": "#d3bb68", "svs": "#b796dd", "scann": "#e08cb2", "hnsw_rs": "#a5abb3"}
DASHES = [(), (6, 3), (2, 2.5)]
TICKS = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999]
LEAST, MOST = 0.8, 0.9993
APART = 15  # labels


def variables(colours):
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def look(name):
    """(colour, dashes, width) of a peer's line."""
    module = PEERS[name].module
    family = [other for other in PEERS if PEERS[other].module == module]
    return module, DASHES[family.index(name) % len(DASHES)], 3.2 if name == "tonnage" else 1.6


def place(recall):
    return -math.log10(1 - min(recall, 0.99999))


def frontier(points):
    """The points that no other beats both in recall and in queries/s, by rising recall. Each begins with these two."""
    front = []
    for point in sorted(points, reverse=True):
        if not front or point[1] > front[0][1]:
            front.insert(0, point)
    return front


def span(curves):
    """The recalls to show, as places on the axis."""
    most = max((recall for points in curves.values() for recall, _, _ in points if recall < MOST), default=MOST)
    return place(LEAST), place(max(most, 0.99)) + 0.04


def visible(points, left, right):
    """The points between left and right, and where the line enters from the left."""
    points = [(place(recall), qps, effort, recall) for recall, qps, effort in frontier(points)]
    inside = [(recall, qps, effort) for x, qps, effort, recall in points if left <= x <= right]
    before = [point for point in points if point[0] < left]
    if before and inside:
        x0, qps0, effort, _ = before[-1]
        recall, qps, _ = inside[0]
        t = (left - x0) / (place(recall) - x0)
        inside.insert(0, (1 - 10**-left, math.exp((1 - t) * math.log(qps0) + t * math.log(qps)), None))
    return inside


class Axes:
    """From recall and queries/s to a place in the picture."""

    def __init__(self, shown, left, right, width, height, margins):
        top, self.right_margin, bottom, self.x0 = margins
        self.x1, self.y0, self.y1 = width - self.right_margin, height - bottom, top
        self.left, self.right = left, right
        speeds = [qps for points in shown.values() for _, qps, _ in points] or [1, 10]
        self.low, self.high = math.log10(min(speeds) * 0.9), math.log10(max(speeds) * 1.1)

    def x(self, recall):
        return self.x0 + (place(recall) - self.left) / (self.right - self.left) * (self.x1 - self.x0)

    def y(self, qps):
        return self.y0 - (math.log10(qps) - self.low) / (self.high - self.low) * (self.y0 - self.y1)


def svg(curves, left, right, width, height, labels):
    shown = {name: points for name, points in ((name, visible(p, left, right)) for name, p in curves.items()) if points}
    axes = Axes(shown, left, right, width, height, (28, 132 if labels else 12, 44, 52))
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="recall against queries per second">', *grid(axes)]
    for name in sorted(shown, key=lambda name: name == "tonnage"):  # ours on top
        parts.append(line(axes, name, shown[name]))
    if labels:
        parts += end_labels(axes, shown)
    return "".join(parts) + "</svg>"


def grid(axes):
    out, last = [], -math.inf
    for recall in TICKS:
        x = axes.x(recall)
        if not axes.x0 <= x <= axes.x1 or x - last < 40:  # outside, or no room for the number
            continue
        last = x
        out.append(f'<path class="grid" d="M{x:.1f} {axes.y0}V{axes.y1}"/>'
                   f'<text x="{x:.1f}" y="{axes.y0 + 18}" text-anchor="middle">{recall:g}</text>')
    for power in range(math.floor(axes.low), math.ceil(axes.high) + 1):
        for digit in (1, 2, 5):
            qps = digit * 10.0**power
            if axes.low <= math.log10(qps) <= axes.high:
                y = axes.y(qps)
                out.append(f'<path class="grid" d="M{axes.x0} {y:.1f}H{axes.x1}"/>'
                           f'<text x="{axes.x0 - 7}" y="{y + 4:.1f}" text-anchor="end">{short(qps)}</text>')
    middle = (axes.x0 + axes.x1) / 2
    return [*out, f'<text x="{middle}" y="{axes.y0 + 38}" text-anchor="middle">recall@10</text>',
            f'<text x="4" y="{axes.y1 - 14}">queries/s, one thread</text>']


def short(qps):
    return f"{qps / 1000:g}k" if qps >= 1000 else f"{qps:g}"


def line(axes, name, points):
    colour, dashes, width = look(name)
    path = " ".join(f"{axes.x(recall):.1f},{axes.y(qps):.1f}" for recall, qps, _ in points)
    dash = f' stroke-dasharray="{" ".join(map(str, dashes))}"' if dashes else ""
    dots = "".join(f'<circle cx="{axes.x(recall):.1f}" cy="{axes.y(qps):.1f}" r="{width + 0.6:.1f}">'
                   f"<title>{escape(name)}, effort {effort}: recall {recall:.4f}, {qps:,.0f} queries/s</title></circle>"
                   for recall, qps, effort in points if effort is not None)
    return (f'<g style="stroke:var(--{colour})" fill="none" stroke-width="{width}" stroke-linejoin="round">'
            f'<polyline points="{path}"{dash}/></g><g style="fill:var(--{colour})">{dots}</g>')


def end_labels(axes, shown):
    """Names right of the picture, pushed apart, each tied to the end of its line. A line that ends early bears its name there."""
    ends = sorted((axes.y(points[-1][1]), axes.x(points[-1][0]), name) for name, points in shown.items())
    early = {name for _, x, name in ends if x < axes.x0 + 0.6 * (axes.x1 - axes.x0)}
    places = iter(spread([y for y, _, name in ends if name not in early], APART, axes.y1, axes.y0))
    return [text(name, x + 7, y + 4) if name in early else tied(axes, name, x, y, next(places)) for y, x, name in ends]


def tied(axes, name, x, y, at):
    return (f'<path d="M{x + 5:.1f} {y:.1f}L{axes.x1 + 8} {at:.1f}" style="stroke:var(--{look(name)[0]})" fill="none" '
            'stroke-width="0.8" opacity="0.55"/>' + text(name, axes.x1 + 12, at + 4))


def text(name, x, y):
    ours, colour = "ours" if name == "tonnage" else "", look(name)[0]
    return f'<text class="name {ours}" x="{x:.1f}" y="{y:.1f}" style="fill:var(--{colour})">{escape(name)}</text>'


def spread(wanted, apart, low, high):
    """Places in the same order, at least `apart` from each other, as near to the wanted ones as two passes get them."""
    places = []
    for want in wanted:
        places.append(max(want, places[-1] + apart if places else low))
    limit = high
    for at in reversed(range(len(places))):
        places[at] = min(places[at], limit)
        limit = places[at] - apart
    return places


def legend(curves):
    out = []
    for name in curves:
        colour, dashes, width = look(name)
        dash = f' stroke-dasharray="{" ".join(map(str, dashes))}"' if dashes else ""
        stroke = f'style="stroke:var(--{colour})" stroke-width="{width}"{dash}'
        out.append(f'<span><svg viewBox="0 0 26 10"><path d="M1 5H25" {stroke}/></svg>{escape(name)}</span>')
    return f'<div class="legend">{"".join(out)}</div>'
