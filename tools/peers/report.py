"""All results that are there as one page, report.html, that needs nothing else; and as one picture a set, curve.png.

`report.py [--work FOLDER]`; `run` calls it at its end.
"""

import argparse
import json
from html import escape
from pathlib import Path

import chart

WORK = Path(__file__).parents[2] / "target/peers"
RECALL = "recall_at_10"
STYLE = """
:root { color-scheme: light dark; --page: #fdfdfc; --ink: #1c1e21; --soft: #62676e; --line: #dcdfe3; --ours-row: #fdeee6; LIGHT }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --ink: #e9ebee; --soft: #9ba1a9; --line: #33373d; --ours-row: #35241b; DARK } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 24px 16px 64px; max-width: 1080px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 8px }
h2 { font-size: 20px; margin: 48px 0 4px; padding-top: 16px; border-top: 1px solid var(--line) }
h3 { font-size: 16px; margin: 28px 0 4px }
p { margin: 4px 0 12px; max-width: 72ch } .soft, caption { color: var(--soft); font-size: 13.5px }
nav a { margin-right: 14px; color: inherit }
svg { display: block; width: 100%; height: auto } .narrow { display: none }
svg text { fill: var(--soft); font-size: 12.5px } svg .grid { stroke: var(--line) } svg .frame { stroke: var(--soft) }
svg .ours { font-weight: 700 }
svg .name { paint-order: stroke; stroke: var(--page); stroke-width: 4px }
.legend { display: none; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; margin: 4px 0 12px }
.legend span { display: inline-flex; align-items: center; gap: 5px } .legend svg { width: 26px; height: 10px }
.scroll { overflow-x: auto; margin: 8px 0 }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { padding: 5px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { font-weight: 600; font-size: 13px; color: var(--soft); vertical-align: bottom }
thead tr.group th { border-bottom: 0; padding-bottom: 0 }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page) }
tr.ours td { background: var(--ours-row); font-weight: 600 } tr.ratio td { background: var(--ours-row); font-size: 13px }
td.best { text-decoration: underline; text-underline-offset: 3px } td small { display: block; color: var(--soft); font-weight: 400 }
td:first-child { white-space: normal; min-width: 112px } td[colspan] { text-align: left; white-space: normal }
thead tr.group th { text-align: left; padding-left: 20px }
.warn { border-left: 3px solid var(--tonnage); padding-left: 10px }
@media (max-width: 700px) { body { padding: 16px 12px 48px } .wide { display: none } .narrow { display: block }
  .legend { display: flex }  th, td { padding: 5px 7px } td small { display: none } }
"""


def page(results, filters):
    parts = ["<h1>Tonnage and its peers</h1>",
             "<p>Recall@10 against queries a second of one thread, one query after another. Peers took turns on one machine within "
             "each round; the best round counts. Compare within a set, not between sets.</p>",
             "<nav>" + "".join(f'<a href="#{r["set"]}">{r["set"]}</a>' for r in results) + "</nav>"]
    for result in results:
        parts += section(result)
        parts += filter_section(filters[result["set"]]) if result["set"] in filters else []
    style = STYLE.replace("LIGHT", chart.variables(chart.LIGHT)).replace("DARK", chart.variables(chart.DARK))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (f'<!doctype html><html lang="en"><head>{head}<title>Tonnage and its peers</title><style>{style}</style></head><body>\n'
            + "\n".join(parts) + "\n</body></html>\n")


def section(result):
    curves, (left, right) = lines(result["peers"]), chart.span(lines(result["peers"]))
    able = {name: peer for name, peer in result["peers"].items() if "error" not in peer}
    unable = "".join(f"<br><b>{escape(name)}</b>: {escape(peer['error'])}"
                     for name, peer in result["peers"].items() if "error" in peer)
    out = [f'<h2 id="{result["set"]}">{result["set"]}</h2>',
           f'<p class="soft">{result["rows"]:,} vectors of {result["dim"]} dimensions, {METRIC[result["metric"]]}. '
           f'{escape(result["processor"])}; built on {result["build_threads"]} threads; best of {result["rounds"]}.</p>']
    if result["least_share_of_core"] < 0.95:
        out.append(f'<p class="warn">Not to be quoted: other work ran on the machine, and one sweep had only '
                   f'{result["least_share_of_core"]:.0%} of its core.</p>')
    out += [f'<div class="wide">{chart.svg(curves, left, right, 1040, 520, labels=True)}</div>',
            f'<div class="narrow">{chart.svg(curves, left, right, 372, 400, labels=False)}</div>', chart.legend(curves),
            table(result, able)]
    if unable:
        out.append(f'<p class="soft">Took no part: {unable}</p>')
    return out


METRIC = {"cosine": "cosine", "ip": "inner product"}


def lines(peers):
    """The points of each peer, ours first."""
    return {name: [(point[RECALL], point["qps"], point["ef"]) for point in peer["search"]]
            for name, peer in sorted(peers.items(), key=lambda item: item[0] != "tonnage") if "error" not in peer}


def table(result, able):
    recalls = list(result["best_peer"])
    fast = sorted(able, key=lambda name: (not name.startswith("tonnage"), -(able[name]["qps_at_recall"][recalls[1]] or 0)))
    head = ('<tr class="group"><th></th>' + f'<th colspan="{len(recalls)}">queries/s at recall</th><th colspan="3">build</th>'
            '<th colspan="2">index</th></tr><tr><th></th>' + "".join(f"<th>{float(r):.3g}</th>" for r in recalls)
            + "<th>s</th><th>CPU s</th><th>MiB</th><th>B/vector</th><th>MiB</th></tr>")
    rows = []
    for name in fast:
        peer = able[name]
        cells = [f'<td{" class=best" if result["best_peer"][r] == name else ""}>{number(peer["qps_at_recall"][r])}</td>'
                 for r in recalls]
        build = peer["build"]
        cells += [f"<td>{number(value)}</td>" for value in (build["wall_s"], build["cpu_s"], build["peak_mb"],
                                                           build["bytes_per_vector"], peer["serve_mb"])]
        ours = ' class="ours"' if name.startswith("tonnage") else ""
        rows.append(f'<tr{ours}><td>{name}<small>{escape(peer["about"])}</small></td>' + "".join(cells) + "</tr>")
        if name == "tonnage":
            ratios = "".join(f"<td>{ratio(result, r)}</td>" for r in recalls)
            rows.append(f'<tr class="ratio"><td>times the best peer</td>{ratios}<td colspan="5"></td></tr>')
    return ('<div class="scroll"><table><thead>' + head + "</thead><tbody>" + "".join(rows) + "</tbody></table></div>"
            '<p class="soft">Underlined: the best peer at that recall. A dash: not reached in its sweep. MiB: the peak of the process '
            "that built, and of the one that searched, programs and queries included.</p>")


def ratio(result, recall):
    value = result["ratio_to_best_peer"][recall]
    return f"{value:.2f} x" if value else "-"


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def filter_section(result):
    """A block of rows for each filter, a row for each peer."""
    out, recalls = [f'<h3>{result["set"]}, under filters</h3>'], result["recalls"]
    head = "".join(f"<th>{text}</th>" for text in ["", *(f"{float(r):.3g}" for r in recalls), "best recall", "queries/s there"])
    rows = []
    for case in result["cases"]:
        rows.append(f'<tr><td colspan="{len(recalls) + 3}"><b>{escape(case["name"])}</b></td></tr>')
        for name, peer in case["peers"].items():
            ours = ' class="ours"' if name == "tonnage" else ""
            if "error" in peer:
                rows.append(f'<tr{ours}><td>{name}</td><td colspan="{len(recalls) + 2}">{escape(peer["error"])}</td></tr>')
                continue
            top = max(peer["search"], key=lambda point: point[RECALL])
            cells = [*(number(peer["qps_at_recall"][r]) for r in recalls), f"{top[RECALL]:.3f}", number(top["qps"])]
            rows.append(f"<tr{ours}><td>{name}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return [*out, '<p class="soft">Queries/s at a recall of the answers that the filter lets through.</p>',
            '<div class="scroll"><table><thead><tr>' + head + "</tr></thead><tbody>" + "".join(rows) + "</tbody></table></div>"]


def picture(result, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5.6), dpi=150)
    curves = lines(result["peers"])
    left, right = chart.span(curves)
    for name, points in curves.items():
        points = chart.visible(points, left, right)
        colour, dashes, width = chart.look(name)
        axes.plot([chart.place(recall) for recall, _, _ in points], [qps for _, qps, _ in points], label=name,
                  color=chart.LIGHT[colour], linewidth=width, dashes=dashes or (None, None), marker="o", markersize=width + 1.2,
                  zorder=3 if colour == "tonnage" else 2)
    ticks = [recall for recall in chart.TICKS if left <= chart.place(recall) <= right]
    axes.set(yscale="log", xlim=(left, right), xlabel="recall@10", ylabel="queries/s, one thread",
             title=f"{result['set']}: {result['rows']:,} x {result['dim']}, {METRIC[result['metric']]}")
    axes.set_xticks([chart.place(recall) for recall in ticks], [f"{recall:g}" for recall in ticks])
    axes.grid(True, which="major", color="#dcdfe3", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


def main():
    args = argparse.ArgumentParser(prog="run --report", description=__doc__)
    args.add_argument("--work", type=Path, default=WORK)
    work = args.parse_args().work
    results = [json.loads(path.read_text()) for path in sorted(work.glob("*/result.json"))]
    results = [result for result in results if "peers" in result]  # written by this version
    filters = {path.parent.name: json.loads(path.read_text()) for path in work.glob("*/filters.json")}
    for result in results:
        picture(result, work / result["set"] / "curve.png")
    (work / "report.html").write_text(page(results, filters))
    print(work / "report.html")


if __name__ == "__main__":
    main()
