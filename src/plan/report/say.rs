//! Numbers and names as people say them.

use crate::plan::modes::Mode;
use crate::plan::{
    Cache, Change, Constraint, Criterion, Entry, Floor, Pages, Publishing, Reason, Relaxation, Settings, Violation,
};

/// `1234567` as `1.18 MiB`: the unit in which `maxmemory` is set.
pub fn bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.iter().find(|(_, shift)| bytes >> shift > 0);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, shift)| format!("{:.2} {name}", bytes as f64 / (1_u64 << shift) as f64),
    )
}

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds as `0 s`, `90 s`, `30 min`, `12 h`, `7 d`.
pub fn time(seconds: f64) -> String {
    let units = [("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)];
    let unit = units.into_iter().find(|(_, unit)| seconds >= 2.0 * unit || seconds == *unit);
    let (name, unit) = unit.unwrap_or(("s", 1.0));
    let number = seconds / unit;
    if number.fract().abs() < 0.05 || number >= 100.0 {
        format!("{number:.0} {name}")
    } else {
        format!("{number:.1} {name}")
    }
}

/// Seconds ago as people say them.
pub fn age(seconds: f64) -> String {
    if seconds > 0.0 { time(seconds) } else { "now".to_owned() }
}

/// The same with its words.
pub fn ago(seconds: f64) -> String {
    if seconds > 0.0 { format!("at most {} ago", time(seconds)) } else { age(seconds) }
}

/// Microseconds as `15.2 us` or `1.20 ms`.
pub fn us(microseconds: f64) -> String {
    if microseconds >= 1000.0 { format!("{:.2} ms", microseconds / 1000.0) } else { format!("{microseconds:.1} us") }
}

/// A share as `12.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Offline => "offline",
        Mode::RealTime => "real time",
        Mode::Hybrid => "hybrid",
    }
}

pub fn cache(cache: &Cache) -> String {
    match *cache {
        Cache::None => "none".to_owned(),
        Cache::Precomputed { entry, users } => format!("{} of {} users, with each release", name(entry), count(users)),
        Cache::Store { entry, ttl_s, on_read } => {
            let anew = if on_read { ", set anew at each read" } else { "" };
            format!("{} in the store for {}{anew}", name(entry), time(ttl_s))
        }
        Cache::Local { entry, entries, bytes: size } => {
            format!("{} {} in the service, {}", count(entries), name(entry), bytes(size))
        }
    }
}

fn name(entry: Entry) -> &'static str {
    match entry {
        Entry::Lists => "lists",
        Entry::Candidates => "candidates",
    }
}

pub fn pages(pages: Option<Pages>) -> String {
    match pages {
        None => "none, lists only".to_owned(),
        Some(Pages::Dense { slots }) => format!("dense, {slots} users a page"),
        Some(Pages::Hashed { mean_users }) => format!("hashed, {mean_users:.1} users a page, mean"),
    }
}

pub fn publishing(publishing: Publishing) -> &'static str {
    match publishing {
        Publishing::Beside => "beside the active release and those kept",
        Publishing::RetireFirst => "after the oldest kept release is retired",
        Publishing::Rolling => "page by page in place; nothing to roll back to",
    }
}

/// What to set, name by name.
pub fn settings(settings: &Settings) -> Vec<(&'static str, String)> {
    let nodes = match (settings.shards, settings.replicas) {
        (1, 0) => "1, no replicas".to_owned(),
        (shards, replicas) => format!("{shards}, each with {replicas} replicas"),
    };
    vec![
        ("mode", mode(settings.mode).to_owned()),
        ("items as", settings.items.to_string()),
        ("users as", settings.users.to_string()),
        ("ef", settings.ef.to_string()),
        ("pages", pages(settings.pages)),
        ("users kept", count(settings.users_kept)),
        ("cached", cache(&settings.cache)),
        ("next release is loaded", publishing(settings.publishing).to_owned()),
        ("releases kept", settings.releases_kept.to_string()),
        ("nodes", nodes),
        ("maxmemory", format!("{} ({})", settings.maxmemory_bytes, bytes(settings.maxmemory_bytes))),
        ("maxmemory-policy", settings.maxmemory_policy.clone()),
    ]
}

fn budget(constraint: Constraint) -> &'static str {
    match constraint {
        Constraint::StoreBytes => "bytes of a node",
        Constraint::LocalRam => "memory of a serving machine",
        Constraint::Quality => "quality",
        Constraint::Coverage => "requests by users who are kept",
        Constraint::P99 => "p99",
        Constraint::Freshness => "freshness",
        Constraint::Cores => "cores",
        Constraint::NodeCpu => "a node's core, taken by commands",
        Constraint::ReleasesKept => "releases kept",
        Constraint::Nodes => "nodes",
        Constraint::RequestsPerS => "requests a second",
        Constraint::Replicas => "replicas",
    }
}

/// The flag that sets a budget.
fn flag(constraint: Constraint, floor: Floor) -> &'static str {
    match constraint {
        Constraint::StoreBytes => "--redis",
        Constraint::LocalRam => "--ram",
        Constraint::Quality => match floor {
            Floor::Recall(_) => "--recall",
            Floor::RankingLoss(_) => "--ranking-loss",
        },
        Constraint::Coverage => "--coverage",
        Constraint::P99 => "--p99-ms",
        Constraint::Freshness => "--freshness",
        Constraint::Cores => "--cores",
        Constraint::ReleasesKept => "--releases-kept",
        // what a node is too slow for, more of them may do
        Constraint::NodeCpu | Constraint::Nodes => "--nodes",
        Constraint::RequestsPerS => "--rps",
        Constraint::Replicas => "--replicas",
    }
}

/// The number as its flag takes it. Sizes are rounded up.
fn given(constraint: Constraint, number: f64) -> String {
    match constraint {
        Constraint::StoreBytes | Constraint::LocalRam => {
            let units = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)];
            let (unit, shift) = units.into_iter().find(|(_, shift)| number as u64 >> shift > 0).unwrap_or(("", 0));
            format!("{}{unit}", rounded(number / (1_u64 << shift) as f64, 2, true))
        }
        Constraint::Freshness => {
            let units = [("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)];
            let (unit, seconds) = units.into_iter().find(|(_, unit)| number % unit == 0.0).unwrap_or(("s", 1.0));
            format!("{}{unit}", number / seconds)
        }
        _ => number.to_string(),
    }
}

/// To so many decimal places, and never to the other side of the number.
fn rounded(number: f64, places: i32, up: bool) -> f64 {
    let scale = 10_f64.powi(places);
    let near = (number * scale).round();
    let short = if up { near / scale < number } else { near / scale > number };
    (near
        + if !short {
            0.0
        } else if up {
            1.0
        } else {
            -1.0
        })
        / scale
}

/// What a budget is changed to, with no more digits than people read; rounded so that it is still enough.
fn enough(change: &Change) -> f64 {
    let places = match change.constraint {
        Constraint::StoreBytes | Constraint::LocalRam => return change.to,
        Constraint::Quality | Constraint::Coverage | Constraint::NodeCpu => 4,
        Constraint::P99 => 2,
        _ => 0,
    };
    rounded(change.to, places, change.to > change.from)
}

fn amount(constraint: Constraint, number: f64) -> String {
    match constraint {
        Constraint::StoreBytes | Constraint::LocalRam => bytes(number as u64),
        Constraint::Quality => format!("{number:.4}"),
        Constraint::Coverage | Constraint::NodeCpu => percent(number),
        Constraint::P99 => format!("{number:.2} ms"),
        Constraint::Freshness => time(number),
        Constraint::Cores
        | Constraint::ReleasesKept
        | Constraint::Nodes
        | Constraint::RequestsPerS
        | Constraint::Replicas => format!("{number:.0}"),
    }
}

pub fn violation(violation: &Violation) -> String {
    let Violation { constraint, allowed, needed } = *violation;
    let name = budget(constraint);
    let most = match constraint {
        Constraint::Coverage | Constraint::ReleasesKept => "least",
        // the floor of recall, or the ceiling of what is lost
        Constraint::Quality if needed < allowed => "least",
        _ => "most",
    };
    format!("{name}: {} where {} is the {most}", amount(constraint, needed), amount(constraint, allowed))
}

/// A relaxation as flags to give: each is enough as it stands there.
pub fn relaxation(relaxation: &Relaxation, floor: Floor) -> String {
    let change = |change: &Change| {
        let (constraint, flag) = (change.constraint, flag(change.constraint, floor));
        let (from, to) = (given(constraint, change.from), given(constraint, enough(change)));
        format!("{flag} {to} instead of {from} ({})", budget(constraint))
    };
    relaxation.changes.iter().map(change).collect::<Vec<_>>().join(", and ")
}

pub fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Violates(violations) => violations.iter().map(violation).collect::<Vec<_>>().join("; "),
        Reason::Worse { criterion, plan, got } => {
            let (name, unit): (_, fn(f64) -> String) = match criterion {
                Criterion::UsersKept => ("keeps fewer users", |n| count(n as u64)),
                Criterion::Publishing => return "possible; publishes less safely".to_owned(),
                Criterion::Cores => ("takes more cores", |n| format!("{n:.0}")),
                Criterion::StoreBytes => ("takes more of the store", |n| bytes(n as u64)),
                Criterion::LocalRam => ("takes more memory for serving", |n| bytes(n as u64)),
                Criterion::Recall => ("finds less", |n| format!("{n:.4}")),
                Criterion::P99 => ("is slower", |n| format!("{n:.2} ms")),
                Criterion::Processor => ("takes more processor time", us),
                Criterion::Order => return "possible, and no better".to_owned(),
            };
            format!("possible; {name}: {} for {}", unit(*got), unit(*plan))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_say_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([5, 2048, 3 << 29].map(bytes), ["5 B", "2.00 KiB", "1.50 GiB"]);
        let times = [0.0, 45.0, 60.0, 90.0, 1800.0, 3600.0, 86_400.0, 129_600.0, 604_800.0];
        assert_eq!(times.map(time), ["0 s", "45 s", "1 min", "90 s", "30 min", "1 h", "1 d", "36 h", "7 d"]);
        assert_eq!([15.24, 1200.0].map(us), ["15.2 us", "1.20 ms"]);
    }

    #[test]
    fn changes_are_said_as_flags_that_are_enough() {
        let said = |constraint, from, to, floor| {
            relaxation(&Relaxation { changes: vec![Change { constraint, from, to }], relative: 1.0 }, floor)
        };
        let recall = Floor::Recall(0.95);
        let cases = [
            (Constraint::StoreBytes, 67_108_864.0, 100_000_001.0, "--redis 95.37MiB instead of 64MiB"),
            (Constraint::StoreBytes, 67_108_864.0, 1_073_741_825.0, "--redis 1.01GiB instead of 64MiB"),
            (Constraint::LocalRam, 500.0, 512.0, "--ram 512 instead of 500"),
            (Constraint::Quality, 0.95, 0.924_66, "--recall 0.9246 instead of 0.95"),
            (Constraint::Quality, 0.95, 0.924_6_f64.next_down(), "--recall 0.9245 instead of 0.95"),
            (Constraint::Coverage, 0.9, 0.837_05, "--coverage 0.837 instead of 0.9"),
            (Constraint::P99, 20.0, 20.401, "--p99-ms 20.41 instead of 20"),
            (Constraint::Freshness, 0.5, 3600.0, "--freshness 1h instead of 0.5s"),
            (Constraint::Freshness, 60.0, 90.2, "--freshness 91s instead of 1min"),
            (Constraint::RequestsPerS, 1200.5, 900.0, "--rps 900 instead of 1200.5"),
            (Constraint::ReleasesKept, 1.0, 0.0, "--releases-kept 0 instead of 1"),
        ];
        for (constraint, from, to, expected) in cases {
            let said = said(constraint, from, to, recall);
            assert!(said.starts_with(&format!("{expected} (")), "{said}, not {expected}");
        }
        let lost = said(Constraint::Quality, 0.01, 0.024_61, Floor::RankingLoss(0.01));
        assert_eq!(lost, "--ranking-loss 0.0247 instead of 0.01 (quality)");
    }
}
