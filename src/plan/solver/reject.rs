//! What else could have been set, and why it was not.

use super::candidate::{Candidate, entry_of};
use crate::codec::Codec;
use crate::plan::quality::ItemForm;
use crate::plan::{Cache, Entry, Mode, Pages, Problem, Publishing, Reason, Rejected};

/// One setting with one value, whatever the others are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Mode(Mode),
    /// Which cache, of what.
    Cache(u8, Option<Entry>),
    Items(ItemForm),
    Users(Codec),
    Effort(u32),
    Addressing(bool),
    Kept(u64),
    Publishing(Publishing),
    Shards(u32),
}

/// The best candidate of each value.
#[derive(Default)]
pub(super) struct Alternatives(Vec<(Value, Candidate)>);

impl Alternatives {
    pub fn look_at(&mut self, problem: &Problem, candidate: &Candidate) {
        for value in values(problem, candidate) {
            let Some(value) = value else { continue };
            match self.0.iter_mut().find(|(known, _)| *known == value) {
                None => self.0.push((value, *candidate)),
                Some((_, best)) if better(candidate, best) => *best = *candidate,
                Some(_) => {}
            }
        }
    }

    /// All values but the plan's own.
    pub fn rejected(&self, problem: &Problem, plan: &Candidate) -> Vec<Rejected> {
        let own = values(problem, plan);
        let others = self.0.iter().filter(|(value, _)| !own.contains(&Some(*value)));
        let mut rejected: Vec<Rejected> = others
            .map(|(value, candidate)| {
                let (setting, alternative) = value.names();
                Rejected { setting: setting.to_owned(), alternative, reason: reason(problem, plan, candidate) }
            })
            .collect();
        // those of one setting together; within it as they were enumerated
        rejected.sort_by_key(|rejected| SETTINGS.iter().position(|setting| *setting == rejected.setting));
        rejected
    }
}

fn reason(problem: &Problem, plan: &Candidate, candidate: &Candidate) -> Reason {
    if !candidate.feasible() {
        return Reason::Violates(candidate.misses.list(problem));
    }
    let (criterion, plan, got) = plan.score.difference(&candidate.score);
    Reason::Worse { criterion, plan, got }
}

/// Feasible before not; of two that are, the better; of two that are not, the one that misses fewer budgets, and by less.
fn better(a: &Candidate, b: &Candidate) -> bool {
    if a.feasible() || b.feasible() {
        return a.feasible() && (!b.feasible() || a.score.compare(&b.score).is_lt());
    }
    let (a, b) = (&a.misses, &b.misses);
    a.count().cmp(&b.count()).then_with(|| a.worst.total_cmp(&b.worst)).is_lt()
}

fn values(problem: &Problem, candidate: &Candidate) -> [Option<Value>; 9] {
    let (choice, point) = (&candidate.choice, &problem.measured.points[candidate.point]);
    let stored = &choice.stored;
    let kind = match choice.cache {
        Cache::None => 0,
        Cache::Precomputed { .. } => 1,
        Cache::Store { on_read: false, .. } => 2,
        Cache::Store { on_read: true, .. } => 3,
        Cache::Local { .. } => 4,
    };
    [
        Some(Value::Mode(choice.mode)),
        (choice.mode == Mode::Hybrid).then_some(Value::Cache(kind, entry_of(choice.cache))),
        Some(Value::Items(point.items)),
        stored.vectors.map(|(codec, _)| Value::Users(codec)),
        Some(Value::Effort(point.ef)),
        stored.vectors.map(|(_, pages)| Value::Addressing(matches!(pages, Pages::Dense { .. }))),
        Some(Value::Kept(stored.kept_percent)),
        Some(Value::Publishing(stored.publishing)),
        Some(Value::Shards(stored.shards)),
    ]
}

const SETTINGS: [&str; 9] =
    ["mode", "cache", "items", "users", "ef", "addressing", "users kept", "publishing", "shards"];

impl Value {
    /// The setting and its value, in words.
    fn names(self) -> (&'static str, String) {
        let words = |setting: usize, value: &str| (SETTINGS[setting], value.to_owned());
        match self {
            Self::Mode(Mode::Offline) => words(0, "offline"),
            Self::Mode(Mode::RealTime) => words(0, "real time"),
            Self::Mode(Mode::Hybrid) => words(0, "hybrid"),
            Self::Cache(kind, entry) => {
                let what = if entry == Some(Entry::Candidates) { "candidates" } else { "lists" };
                let place = match kind {
                    0 => return words(1, "none"),
                    1 => "precomputed",
                    2 => "in the store, TTL from the write",
                    3 => "in the store, TTL from the last read",
                    _ => "in the serving process",
                };
                words(1, &format!("{what} {place}"))
            }
            Self::Items(form) => words(2, &form.to_string()),
            Self::Users(codec) => words(3, codec.name()),
            Self::Effort(ef) => words(4, &ef.to_string()),
            Self::Addressing(dense) => words(5, if dense { "dense" } else { "hashed" }),
            Self::Kept(percent) => words(6, &format!("{percent} %")),
            Self::Publishing(Publishing::Beside) => words(7, "beside"),
            Self::Publishing(Publishing::RetireFirst) => words(7, "retire first"),
            Self::Publishing(Publishing::Rolling) => words(7, "rolling"),
            Self::Shards(shards) => words(8, &shards.to_string()),
        }
    }
}
