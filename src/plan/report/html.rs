//! The plan as one page that loads nothing.

use std::fmt::Write as _;

use super::chart::{Axis, Bars, Line, Mark, Plot, Scale, escaped};
use super::{Report, page, say};
use crate::codec::Codec;
use crate::plan::quality::{ItemForm, Worth};
use crate::plan::traffic::{Basis, TtlPoint};
use crate::plan::{Cache, Estimate, Outcome, Verdict};

/// Colours of parts; more share the last.
const COLOURS: usize = 8;
/// Rejected alternatives that are shown.
const SHOWN: usize = 40;

/// The page: the load line, recall against bytes, the miss-ratio curve, the modes, what was rejected.
pub fn html(report: &Report) -> String {
    let mut page = page::HEAD.to_owned();
    header(&mut page, report);
    match &report.outcome {
        Outcome::Fits { .. } => {
            load_line(&mut page, report);
            settings(&mut page, report);
        }
        Outcome::Nothing { .. } => relaxations(&mut page, report),
    }
    codecs(&mut page, report);
    modes(&mut page, report);
    page.push_str("<div class=\"two\">");
    misses(&mut page, report);
    assumptions(&mut page, report);
    page.push_str("</div>");
    rejections(&mut page, report);
    let _ = write!(page, "<footer>Made by tonnage {}.</footer>", env!("CARGO_PKG_VERSION"));
    page.push_str(page::TAIL);
    page
}

fn header(page: &mut String, report: &Report) {
    let model = &report.model;
    let _ = write!(
        page,
        "<header><h1>Capacity plan</h1><p>{} items and {} users of {} dimensions, {} requests a second, on {}</p>",
        say::count(model.items),
        say::count(model.users),
        model.dim,
        say::count(report.budgets.requests_per_s as u64),
        escaped(&model.server)
    );
    let Some(plan) = report.plan() else {
        page.push_str("<div class=\"verdict bad\">Nothing fits these budgets.</div></header>");
        return;
    };
    let predicted = &plan.predicted;
    let spare = report.budgets.store_bytes().saturating_sub(predicted.peak_bytes);
    let _ = write!(
        page,
        "<div class=\"verdict good\">It fits: {} of each node stay free at the peak, while a release is loaded.</div></header>",
        say::bytes(spare)
    );
    let tiles = [
        (
            say::mode(plan.settings.mode).to_owned(),
            format!("items as {}, users as {}", plan.settings.items, plan.settings.users),
        ),
        (
            say::bytes(predicted.peak_bytes),
            format!("peak of the fullest node, of {}", say::bytes(report.budgets.store_bytes())),
        ),
        (
            format!("{:.3}", predicted.recall.mean),
            format!("recall@{}, at least {:.4} with 95 % confidence", report.model.k, predicted.recall.low),
        ),
        (format!("{:.2} ms", predicted.p99_ms), format!("p99; {} cores in all", predicted.cores)),
    ];
    page.push_str("<div class=\"tiles\">");
    for (number, what) in tiles {
        let _ = write!(page, "<div class=\"tile\"><b>{number}</b><span>{}</span></div>", escaped(&what));
    }
    page.push_str("</div>");
}

/// Budget, at rest, at the peak, by component.
fn load_line(page: &mut String, report: &Report) {
    let Some(plan) = report.plan() else { return };
    let predicted = &plan.predicted;
    let parts = |bytes: fn(&crate::plan::Component) -> u64| {
        predicted.components.iter().map(|part| bytes(part) as f64).collect::<Vec<f64>>()
    };
    let bars = Bars {
        title: "Bytes of the fullest node at rest and at the peak, against the budget",
        rows: vec![
            ("At rest".to_owned(), say::bytes(predicted.rest_bytes), parts(|part| part.rest_bytes)),
            ("At the peak".to_owned(), say::bytes(predicted.peak_bytes), parts(|part| part.peak_bytes)),
        ],
        limit: Some((
            report.budgets.store_bytes() as f64,
            format!("budget {}", say::bytes(report.budgets.store_bytes())),
        )),
    };
    let rows = predicted.components.iter().enumerate().map(|(at, part)| {
        let colour = (at + 1).min(COLOURS);
        let name = format!("<i class=\"swatch p{colour}\"></i>{}", escaped(&part.name));
        vec![name, say::bytes(part.rest_bytes), say::bytes(part.peak_bytes)]
    });
    let full = predicted
        .days_until_full
        .map_or(String::new(), |days| format!(" At the growth given it is full in {days} days."));
    let _ = write!(
        page,
        "<section><h2>The load line</h2><p class=\"about\">used_memory of the fullest node, as the server will report it.{full}</p>{}<div class=\"scroll\">{}</div></section>",
        bars.svg(),
        table(&["", "at rest", "at the peak"], rows, None)
    );
}

fn settings(page: &mut String, report: &Report) {
    let Some(plan) = report.plan() else { return };
    let predicted = &plan.predicted;
    let set = say::settings(&plan.settings)
        .into_iter()
        .map(|(name, value)| (name, format!("<code>{}</code>", escaped(&value))));
    let assumed = if report.assumed_traffic().is_some() { " <span class=\"note\">assumed</span>" } else { "" };
    let does = [
        ("recall", format!("{:.4}, at least {:.4}", predicted.recall.mean, predicted.recall.low)),
        ("hits of the cache", say::percent(predicted.hit_rate) + if predicted.hit_rate > 0.0 { assumed } else { "" }),
        (
            "requests of users kept",
            say::percent(predicted.coverage) + if predicted.coverage < 1.0 { assumed } else { "" },
        ),
        ("an answer is computed", say::ago(predicted.freshness_s)),
        ("from a vector published", say::ago(report.model.release_every_s)),
        (
            "processor, a request",
            format!("{} of the service, {} of the store", say::us(predicted.client_us), say::us(predicted.server_us)),
        ),
        ("cores", format!("{} serving, {} with the store's", predicted.serving_cores, predicted.cores)),
        (
            "memory of a serving machine",
            format!("{} of {}", say::bytes(predicted.local_ram_bytes), say::bytes(report.budgets.local_ram_bytes)),
        ),
        ("memory of a node's machine", say::bytes(predicted.node_ram_bytes)),
    ];
    let _ = write!(
        page,
        "<div class=\"two\"><section><h2>What to set</h2><p class=\"about\">publish takes it as plan.toml.</p>{}</section><section><h2>What that does</h2><p class=\"about\">Predicted, from what was measured.</p>{}</section></div>",
        pairs(set),
        pairs(does)
    );
}

fn relaxations(page: &mut String, report: &Report) {
    let Outcome::Nothing { hopeless, relaxations } = &report.outcome else { return };
    let list = |items: Vec<String>| {
        let items: Vec<String> = items.iter().map(|item| format!("<li>{}</li>", escaped(item))).collect();
        items.concat()
    };
    page.push_str("<div class=\"two\"><section><h2>What does not fit</h2><ul class=\"notes\">");
    *page += &match &hopeless[..] {
        [] => "<li>Each budget can be met by itself, but not all of them together.</li>".to_owned(),
        some => list(some.iter().map(say::violation).collect()),
    };
    page.push_str("</ul></section><section><h2>What would help, the least first</h2><ul class=\"notes\">");
    *page += &match &relaxations[..] {
        [] => "<li>No change of budgets was found that helps.</li>".to_owned(),
        some => list(some.iter().map(|relaxation| say::relaxation(relaxation, report.budgets.floor)).collect()),
    };
    page.push_str("</ul></section></div>");
}

/// A way to keep items or users, and what it is worth beside exact vectors of the others.
struct Kept<'a> {
    name: String,
    bytes: usize,
    worth: &'a Worth,
    chosen: bool,
}

/// Recall against bytes.
fn codecs(page: &mut String, report: &Report) {
    let settings = report.plan().map(|plan| (plan.settings.items, plan.settings.users));
    let float = ItemForm { codec: Codec::F32, finer: None };
    let dim = report.model.dim as usize;
    let items = report.exact.iter().filter(|exact| exact.users == Codec::F32).map(|exact| Kept {
        name: exact.items.to_string(),
        bytes: exact.items.bytes(dim),
        worth: &exact.worth,
        chosen: settings.is_some_and(|(items, _)| items == exact.items),
    });
    let users = report.exact.iter().filter(|exact| exact.items == float).map(|exact| Kept {
        name: exact.users.to_string(),
        bytes: exact.users.bytes_per_vector(dim),
        worth: &exact.worth,
        chosen: settings.is_some_and(|(_, users)| users == exact.users),
    });
    let figure = |title: &str, label: &str, mut kept: Vec<Kept>| {
        kept.sort_by_key(|kept| kept.bytes);
        let plot = recall_plot(title, label, &kept, report.recall_floor());
        format!("<figure><h3>{title}</h3>{}<div class=\"scroll\">{}</div></figure>", plot.svg(), worths(report, &kept))
    };
    let _ = write!(
        page,
        "<section><h2>Recall against bytes</h2><p class=\"about\">Share of the {} best items that are found when every item is scored: what the codec costs by itself. Measured on {} users; intervals are of 95 % confidence.</p><div class=\"pair\">{}{}</div></section>",
        report.model.k,
        say::count(u64::from(report.model.users_asked)),
        figure("Items, with exact users", "bytes of an item", items.collect()),
        figure("Users, with exact items", "bytes of a user", users.collect())
    );
}

/// The numbers of a chart of recall, and hits where they were measured.
fn worths(report: &Report, kept: &[Kept]) -> String {
    let hits = report.model.users_held_out > 0;
    let row = |(at, kept): (usize, &Kept)| {
        let Estimate { mean, low, high, .. } = kept.worth.recall;
        let class = match report.recall_floor().map(|floor| kept.worth.recall.against(floor)) {
            Some(Verdict::Reached) => "yes",
            Some(Verdict::Missed) => "no",
            Some(Verdict::Open) => "open",
            None => "",
        };
        let recall = format!("<span class=\"{class}\">{mean:.4}</span><small>{low:.4}–{high:.4}</small>");
        let mut cells = vec![format!("{} {}", at + 1, kept.name), kept.bytes.to_string(), recall];
        if hits {
            let share = |share: Option<Estimate>| share.map_or(String::new(), |share| format!("{:.4}", share.mean));
            cells.extend([share(kept.worth.hit_rate), share(kept.worth.ndcg)]);
        }
        cells
    };
    let chosen = kept.iter().position(|kept| kept.chosen);
    let header = ["", "bytes", "recall, 95 %", "hit rate", "NDCG"];
    table(&header[..if hits { 5 } else { 3 }], kept.iter().enumerate().map(row), chosen)
}

fn recall_plot(title: &str, label: &str, kept: &[Kept], floor: Option<f64>) -> Plot {
    let least = kept.iter().map(|kept| kept.worth.recall.low).chain(floor).fold(0.95, f64::min);
    let nines = [0.0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999];
    let from = nines.into_iter().rev().find(|&nine| nine < least).unwrap_or(0.0);
    let shown = [0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999].into_iter().filter(|&tick| tick >= from);
    let mut ticks: Vec<(f64, String)> = shown.map(|tick| (tick, tick.to_string())).collect();
    ticks.push((1.0, "all".to_owned()));
    let bytes = || kept.iter().map(|kept| kept.bytes as f64);
    let (least, most) = (bytes().fold(f64::MAX, f64::min), bytes().fold(1.0, f64::max));
    let (first, last) = (least.min(most) * 0.8, most * 1.15);
    let powers = (0..20).map(|power| f64::from(1_u32 << power)).filter(|&x| x >= first && x <= last);
    let mark = |(at, kept): (usize, &Kept)| {
        let Estimate { mean, low, high, .. } = kept.worth.recall;
        Mark { x: kept.bytes as f64, y: mean, low, high, label: (at + 1).to_string(), chosen: kept.chosen }
    };
    Plot {
        title: format!("Recall of ways to keep {}, against bytes", title.to_lowercase()),
        x: Axis {
            label: label.to_owned(),
            scale: Scale::Logarithmic,
            from: first,
            to: last,
            ticks: powers.map(|x| (x, format!("{x:.0}"))).collect(),
        },
        y: Axis { label: "recall".to_owned(), scale: Scale::Nines, from, to: 1.0, ticks },
        lines: Vec::new(),
        floor: floor.map(|floor| (floor, format!("floor {floor}"))),
        marks: kept.iter().enumerate().map(mark).collect(),
    }
}

/// The miss-ratio curve with the chosen point.
fn misses(page: &mut String, report: &Report) {
    let traffic = &report.traffic;
    let local = report.plan().and_then(|plan| match plan.settings.cache {
        Cache::Local { entries, .. } => Some(entries),
        _ => None,
    });
    let plot = local.map_or_else(|| ttl_plot(report), |entries| lru_plot(report, entries));
    let legend = plot
        .lines
        .iter()
        .enumerate()
        .map(|(at, line)| format!("<li><i class=\"swatch p{}\"></i>{}</li>", at + 1, escaped(&line.label)));
    let basis = match &traffic.basis {
        Basis::Log { requests, seconds, sampled_users, .. } => format!(
            "From a log of {} requests over {}, {} users followed.",
            say::count(*requests),
            say::time(*seconds),
            say::count(*sampled_users)
        ),
        Basis::AssumedZipf { exponent, users, requests_per_s } => format!(
            "<span class=\"note\">assumed</span> No log was given: {} users, activity falling as rank<sup>-{exponent}</sup>, {requests_per_s} requests a second. Real users come back sooner than this.",
            say::count(*users)
        ),
    };
    let chosen = if plot.marks.is_empty() { " The plan caches nothing by TTL or size." } else { "" };
    let _ = write!(
        page,
        "<section><h2>Misses of a result cache</h2><p class=\"about\">{basis}{chosen}</p><figure>{}<ul class=\"legend\">{}</ul></figure></section>",
        plot.svg(),
        legend.collect::<String>()
    );
}

/// As high as the curves are.
fn ratio_axis(lines: &[Line]) -> Axis {
    let most = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max);
    let to = [0.04, 0.1, 0.2, 0.4].into_iter().find(|&top| most <= top).unwrap_or(1.0);
    let ticks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| (part * to, format!("{:.3}", part * to * 100.0)));
    let short = |(at, label): (f64, String)| (at, label.trim_end_matches('0').trim_end_matches('.').to_owned() + " %");
    Axis { label: "misses".to_owned(), scale: Scale::Linear, from: 0.0, to, ticks: ticks.map(short).into() }
}

fn ttl_plot(report: &Report) -> Plot {
    let traffic = &report.traffic;
    let line = |label: &str, points: &[TtlPoint]| Line {
        label: label.to_owned(),
        points: points.iter().map(|point| (point.ttl_s, 1.0 - point.hit_rate)).collect(),
    };
    let chosen = report.ttl().and_then(|(ttl_s, on_read)| {
        let points = if on_read { &traffic.ttl_on_read } else { &traffic.ttl_on_write };
        let point = points.iter().find(|point| point.ttl_s == ttl_s)?;
        let y = 1.0 - point.hit_rate;
        let label = format!("{}: {} miss", say::time(ttl_s), say::percent(y));
        Some(Mark { x: ttl_s, y, low: y, high: y, label, chosen: true })
    });
    let lines = vec![
        line("lives on when read", &traffic.ttl_on_read),
        line("lives for the TTL and no longer", &traffic.ttl_on_write),
    ];
    let ends = [traffic.ttl_on_write.first(), traffic.ttl_on_write.last()].map(|point| point.map_or(60.0, |p| p.ttl_s));
    let ticks = [60.0, 900.0, 3600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0];
    let ticks = ticks.into_iter().filter(|&tick| tick >= ends[0] && tick <= ends[1]);
    Plot {
        title: "Share of requests without a cached list, by TTL".to_owned(),
        x: Axis {
            label: "TTL of a list".to_owned(),
            scale: Scale::Logarithmic,
            from: ends[0],
            to: ends[1],
            ticks: ticks.map(|tick| (tick, say::time(tick))).collect(),
        },
        y: ratio_axis(&lines),
        lines,
        marks: chosen.into_iter().collect(),
        floor: None,
    }
}

fn lru_plot(report: &Report, entries: u64) -> Plot {
    let points: Vec<(f64, f64)> =
        report.traffic.lru.iter().map(|point| (point.entries as f64, 1.0 - point.hit_rate)).collect();
    let lines = vec![Line { label: "least recently used leaves".to_owned(), points: points.clone() }];
    let most = points.last().map_or(1.0, |point| point.0);
    let from = points.first().map_or(1.0, |point| point.0).max(most / 1e4);
    let y = 1.0 - report.traffic.lru_hit_rate(entries);
    let label = format!("{}: {} miss", say::count(entries), say::percent(y));
    let tens = (0..16).map(|power| 10_f64.powi(power)).filter(|&x| x >= from && x <= most);
    Plot {
        title: "Share of requests without a cached list, by entries".to_owned(),
        x: Axis {
            label: "entries of the cache, the least recently used leaving first".to_owned(),
            scale: Scale::Logarithmic,
            from,
            to: most,
            ticks: tens.map(|x| (x, say::count(x as u64))).collect(),
        },
        y: ratio_axis(&lines),
        lines,
        marks: vec![Mark { x: entries as f64, y, low: y, high: y, label, chosen: true }],
        floor: None,
    }
}

/// The modes side by side.
fn modes(page: &mut String, report: &Report) {
    let bar = |mode: &super::ModeReport| {
        let parts = mode.parts.iter().map(|part| part.client_us).collect();
        (say::mode(mode.mode).to_owned(), say::us(mode.client_us), parts)
    };
    let bars = Bars {
        title: "Processor time of the service for a request in each mode",
        rows: report.modes.iter().map(bar).collect(),
        limit: None,
    };
    let chosen = report.plan().map(|plan| plan.settings.mode);
    let class = |mode: &super::ModeReport| if Some(mode.mode) == chosen { "num chosen" } else { "num" };
    let head = report.modes.iter().map(|mode| format!("<th class=\"{}\">{}</th>", class(mode), say::mode(mode.mode)));
    let line = |(name, said): (String, super::Said)| {
        let cell = |mode| format!("<td class=\"{}\">{}</td>", class(mode), said(mode, report));
        format!("<tr><td>{name}</td>{}</tr>", report.modes.iter().map(cell).collect::<String>())
    };
    let lines = report.mode_lines().into_iter().map(line);
    let legend = ["list", "vector, filters and ranks", "search", "writing a list"].into_iter().enumerate();
    let legend = legend.map(|(at, name)| format!("<li><i class=\"swatch p{}\"></i>{name}</li>", at + 1));
    let warning = if report.store.server {
        ""
    } else {
        " <span class=\"note\">assumed</span> No server was given: the store measured is a file, without a network."
    };
    let _ = write!(
        page,
        "<section><h2>The modes side by side</h2><p class=\"about\">Processor time of a request, measured on this machine.{warning}</p>{}<ul class=\"legend\">{}</ul><table><tr><th>a request</th>{}</tr>{}</table></section>",
        bars.svg(),
        legend.collect::<String>(),
        head.collect::<String>(),
        lines.collect::<String>()
    );
}

fn rejections(page: &mut String, report: &Report) {
    let Outcome::Fits { rejected, .. } = &report.outcome else { return };
    let rows = rejected.iter().take(SHOWN).map(|rejected| {
        let cells = [&rejected.setting, &rejected.alternative, &say::reason(&rejected.reason)];
        format!(
            "<tr><td class=\"key\">{}</td><td>{}</td><td>{}</td></tr>",
            escaped(cells[0]),
            escaped(cells[1]),
            escaped(cells[2])
        )
    });
    let more = rejected.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("<p class=\"about\">And {more} more, in --json.</p>") } else { String::new() };
    let _ = write!(
        page,
        "<section><h2>What was not chosen, and why</h2><p class=\"about\">Each alternative with the best of all other settings.</p><div class=\"scroll\"><table><tr><th>setting</th><th>instead</th><th>why not</th></tr>{}</table></div>{more}</section>",
        rows.collect::<String>()
    );
}

fn assumptions(page: &mut String, report: &Report) {
    let list: Vec<String> = report.assumptions.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
    let _ = write!(
        page,
        "<section><h2>Assumed, not measured</h2><p class=\"about\"><span class=\"note\">assumed</span> What the plan rests on and nobody looked at.</p><ul class=\"notes\">{}</ul></section>",
        list.concat()
    );
}

/// Names and values; values are HTML.
fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows = rows.into_iter().map(|(name, value)| format!("<tr><td class=\"key\">{name}</td><td>{value}</td></tr>"));
    format!("<table>{}</table>", rows.collect::<String>())
}

/// A table; the columns after the first are numbers. Cells are HTML.
fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, chosen: Option<usize>) -> String {
    let class = |at: usize| if at == 0 { "" } else { " class=\"num\"" };
    let cells = |tag: &str, cells: &[&str]| {
        let cell = |(at, cell): (usize, &&str)| format!("<{tag}{}>{cell}</{tag}>", class(at));
        cells.iter().enumerate().map(cell).collect::<String>()
    };
    let row = |(at, row): (usize, Vec<String>)| {
        let mark = if Some(at) == chosen { " class=\"chosen\"" } else { "" };
        format!("<tr{mark}>{}</tr>", cells("td", &row.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let rows = rows.into_iter().enumerate().map(row);
    format!("<table><tr>{}</tr>{}</table>", cells("th", header), rows.collect::<String>())
}
