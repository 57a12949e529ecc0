//! What the page looks like: its style, and nothing that it loads.

pub const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Tonnage plan</title>
<style>
:root {
  --page: #f6f7f9; --card: #ffffff; --ink: #15202b; --soft: #5b6876; --line: #dfe4ea; --track: #eceff3;
  --good: #0b7a4b; --good-back: #e3f4ea; --bad: #b3261e; --bad-back: #fbe9e7; --note: #8a5a00; --note-back: #fdf3dc;
  --c1: #1f6fd6; --c2: #e08a00; --c3: #159a8c; --c4: #8a56c9; --c5: #c2416b; --c6: #6b7a8a; --c7: #7a8f1d; --c8: #b06a3b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1419; --card: #182028; --ink: #e6ebf0; --soft: #98a5b3; --line: #2b3641; --track: #222c36;
    --good: #5fd39a; --good-back: #12301f; --bad: #ff8a80; --bad-back: #3a1917; --note: #f0c060; --note-back: #33280f;
    --c1: #5b9dff; --c2: #f5ab3d; --c3: #3fc7b8; --c4: #b48af0; --c5: #f07a9f; --c6: #93a3b3; --c7: #b4c95a; --c8: #d9996b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 48px; }
header h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
header p { margin: 0; color: var(--soft); }
.verdict { margin: 18px 0 0; padding: 12px 16px; border-radius: 8px; font-weight: 600; }
.verdict.good { color: var(--good); background: var(--good-back); }
.verdict.bad { color: var(--bad); background: var(--bad-back); }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin: 16px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 22px; line-height: 1.25; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile span { color: var(--soft); font-size: 13px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px; margin-top: 16px; min-width: 0; }
h2 { font-size: 17px; margin: 0 0 2px; }
h2 + p { margin: 0 0 12px; }
p.about, figcaption { color: var(--soft); font-size: 13px; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.two > section { margin-top: 16px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 28px; }
figure { margin: 0; min-width: 0; }
figure h3 { font-size: 14px; margin: 0 0 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; padding: 6px 14px 6px 0; white-space: nowrap; }
td { padding: 6px 14px 6px 0; border-top: 1px solid var(--line); vertical-align: top; }
td:last-child, th:last-child { padding-right: 0; }
.num { text-align: right; white-space: nowrap; }
td small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; }
tr.all td { font-weight: 600; }
tr.chosen td { color: var(--good); font-weight: 600; }
td.chosen, th.chosen { color: var(--good); font-weight: 600; }
tr.chosen td:first-child::after { content: " (chosen)"; font-weight: 400; }
.yes { color: var(--good); } .no { color: var(--bad); } .open { color: var(--note); }
.key { color: var(--soft); white-space: nowrap; }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 6px 0 0; padding: 0; list-style: none; font-size: 13px; color: var(--soft); }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
.note { display: inline-block; padding: 1px 8px; border-radius: 10px; background: var(--note-back); color: var(--note); font-size: 12px; font-weight: 600; }
ul.notes { margin: 6px 0 0; padding-left: 18px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis, svg .tick { stroke: var(--soft); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .s1 { stroke: var(--c1); } svg .s2 { stroke: var(--c2); } svg .s3 { stroke: var(--c3); }
svg .floor { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg text.floor-label { fill: var(--bad); }
svg .mark circle { fill: var(--card); stroke: var(--c1); stroke-width: 2; }
svg .mark path { stroke: var(--c1); stroke-width: 2; }
svg .mark text { fill: var(--ink); }
svg .chosen circle { fill: var(--good); stroke: var(--card); }
svg .chosen path { stroke: var(--good); }
svg .chosen text { fill: var(--good); font-weight: 600; }
svg.bars text.name { fill: var(--ink); font-size: 13px; }
svg.bars tspan.number { font-weight: 600; font-variant-numeric: tabular-nums; }
svg .track { fill: var(--track); }
svg .limit { stroke: var(--bad); stroke-width: 2; }
svg.bars text.limit-label { fill: var(--bad); font-size: 12px; font-weight: 600; }
.p1 { fill: var(--c1); background: var(--c1); } .p2 { fill: var(--c2); background: var(--c2); }
.p3 { fill: var(--c3); background: var(--c3); } .p4 { fill: var(--c4); background: var(--c4); }
.p5 { fill: var(--c5); background: var(--c5); } .p6 { fill: var(--c6); background: var(--c6); }
.p7 { fill: var(--c7); background: var(--c7); } .p8 { fill: var(--c8); background: var(--c8); }
footer { color: var(--soft); font-size: 13px; margin-top: 20px; }
@media (max-width: 760px) {
  main { padding: 18px 14px 32px; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .two, .pair { grid-template-columns: 1fr; }
  section { padding: 14px; }
  .two { gap: 0; }
  .tile b { font-size: 19px; }
  .key { white-space: normal; }
  th, td { padding-right: 8px; white-space: normal; }
  table { font-size: 13px; }
  th { font-size: 12px; }
}
</style>
</head>
<body>
<main>
"#;

pub const TAIL: &str = "</main>\n</body>\n</html>\n";
