//! The plan as a table for a terminal.

use std::fmt::Write as _;

use super::{Report, say};
use crate::plan::{Outcome, Rejected, Verdict};

/// Rejected alternatives that are shown; `--json` has all of them.
const SHOWN: usize = 24;

/// What to set, what that does, what was rejected and why; or what does not fit and what would.
pub fn text(report: &Report) -> String {
    let model = &report.model;
    let mut text = format!(
        "{} items and {} users of {} dimensions, for {}\n\n",
        say::count(model.items),
        say::count(model.users),
        model.dim,
        model.server
    );
    match &report.outcome {
        Outcome::Fits { plan, rejected } => {
            text += &columns(
                "set",
                say::settings(&plan.settings).into_iter().map(|(name, value)| [name.to_owned(), value]),
            );
            text.push('\n');
            text += &predictions(report);
            text.push('\n');
            text += &load(report);
            text.push('\n');
            text += &rejections(rejected);
        }
        Outcome::Nothing { hopeless, relaxations } => {
            text += "nothing fits\n";
            for violation in hopeless {
                let _ = writeln!(text, "  {}", say::violation(violation));
            }
            if hopeless.is_empty() {
                text += "  each budget can be met by itself, but not all of them together\n";
            }
            text += if relaxations.is_empty() {
                "and no change of budgets was found that helps\n"
            } else {
                "what would help, the least first\n"
            };
            for relaxation in relaxations {
                let _ = writeln!(text, "  {}", say::relaxation(relaxation, report.budgets.floor));
            }
        }
    }
    text.push('\n');
    text += &modes(report);
    text.push('\n');
    if !report.assumptions.is_empty() {
        text += "assumed, not measured\n";
        for assumption in &report.assumptions {
            let _ = writeln!(text, "  {assumption}");
        }
    }
    text
}

fn predictions(report: &Report) -> String {
    let Some(plan) = report.plan() else { return String::new() };
    let (predicted, budgets) = (&plan.predicted, &report.budgets);
    let assumed = report.assumed_traffic().map(|how| format!(" ({how})")).unwrap_or_default();
    let recall = predicted.recall;
    let reached = report.recall_floor().map_or(String::new(), |floor| {
        let verdict = match recall.against(floor) {
            Verdict::Reached => "reaches",
            Verdict::Open => "may reach",
            Verdict::Missed => "misses",
        };
        format!(", {verdict} {floor}")
    });
    let full = predicted
        .days_until_full
        .map_or("not within ten years, or not by growth".to_owned(), |d| format!("in {d} days"));
    let mut rows = vec![
        ["recall".to_owned(), format!("{:.4}, at least {:.4} with 95 % confidence{reached}", recall.mean, recall.low)],
        [
            "hits of the cache".to_owned(),
            say::percent(predicted.hit_rate) + if predicted.hit_rate > 0.0 { &assumed } else { "" },
        ],
        [
            "requests of users kept".to_owned(),
            say::percent(predicted.coverage) + if predicted.coverage < 1.0 { &assumed } else { "" },
        ],
        ["an answer is computed".to_owned(), say::ago(predicted.freshness_s)],
        ["from a vector published".to_owned(), say::ago(report.model.release_every_s)],
        ["p99".to_owned(), format!("{:.2} ms of {:.0} ms", predicted.p99_ms, budgets.p99_ms)],
        [
            "processor, a request".to_owned(),
            format!("{} of the service, {} of the store", say::us(predicted.client_us), say::us(predicted.server_us)),
        ],
        [
            "cores".to_owned(),
            format!(
                "{} for {} requests a second, {} with the store's",
                predicted.serving_cores,
                say::count(budgets.requests_per_s as u64),
                predicted.cores
            ),
        ],
        [
            "memory of a serving machine".to_owned(),
            format!("{} of {}", say::bytes(predicted.local_ram_bytes), say::bytes(budgets.local_ram_bytes)),
        ],
        ["memory of a node's machine".to_owned(), say::bytes(predicted.node_ram_bytes)],
        ["full".to_owned(), full],
    ];
    if let Some(loss) = predicted.ranking_loss {
        rows.insert(1, ["ranking (NDCG) lost, at most".to_owned(), say::percent(loss)]);
    }
    columns("predicted", rows)
}

/// The bytes of the fullest node.
fn load(report: &Report) -> String {
    let Some(plan) = report.plan() else { return String::new() };
    let predicted = &plan.predicted;
    let row = |name: &str, rest: u64, peak: u64| vec![name.to_owned(), say::bytes(rest), say::bytes(peak)];
    let mut rows: Vec<Vec<String>> =
        predicted.components.iter().map(|part| row(&part.name, part.rest_bytes, part.peak_bytes)).collect();
    rows.push(row("all", predicted.rest_bytes, predicted.peak_bytes));
    let allowed = report.budgets.store_bytes();
    rows.push(row("allowed", allowed, allowed));
    table(&["the fullest node", "at rest", "at the peak"], &rows)
}

/// The modes side by side.
fn modes(report: &Report) -> String {
    let row = |(name, said): (String, super::Said)| {
        std::iter::once(name).chain(report.modes.iter().map(|mode| said(mode, report))).collect()
    };
    let rows: Vec<Vec<String>> = report.mode_lines().into_iter().map(row).collect();
    let names = report.modes.iter().map(|mode| say::mode(mode.mode));
    table(&std::iter::once("a request").chain(names).collect::<Vec<_>>(), &rows)
}

fn rejections(rejected: &[Rejected]) -> String {
    let rows = rejected
        .iter()
        .take(SHOWN)
        .map(|rejected| [format!("{} {}", rejected.setting, rejected.alternative), say::reason(&rejected.reason)]);
    let mut text = columns("not chosen", rows);
    if rejected.len() > SHOWN {
        let _ = writeln!(text, "  and {} more: --json has them", rejected.len() - SHOWN);
    }
    text
}

/// Names and texts.
fn columns(title: &str, rows: impl IntoIterator<Item = [String; 2]>) -> String {
    let rows: Vec<[String; 2]> = rows.into_iter().collect();
    let width = rows.iter().map(|[name, _]| name.chars().count()).max().unwrap_or(0);
    let line = |[name, value]: &[String; 2]| format!("  {name:<width$}  {value}\n");
    format!("{title}\n{}", rows.iter().map(line).collect::<String>())
}

/// A table; the columns after the first are numbers and stand to the right.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let line = |cells: &[&str]| {
        let cell = |(at, cell): (usize, &&str)| {
            let width = width(at);
            if at == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") }
        };
        cells.iter().enumerate().map(cell).collect::<String>().trim_end().to_owned() + "\n"
    };
    let rows = rows.iter().map(|row| "  ".to_owned() + &line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    format!("{}{}", "  ".to_owned() + &line(header), rows.collect::<String>())
}
