//! A plan as people and machines read it: a table, JSON, a page.
//!
//! The one thing to know: what is assumed and not measured is listed in [`Report::assumptions`], and every form shows it.

mod chart;
mod html;
mod page;
mod say;
mod text;

use serde::Serialize;

use super::cost::{SearchCost, StoreCosts};
use super::modes::{Mode, Steps};
use super::quality::{Exact, ItemForm, Served};
use super::traffic::{Basis, Traffic};
use super::{Budgets, Cache, Cost, Costs, Floor, Outcome, Plan};
use crate::codec::Metric;

pub use html::html;
pub use text::text;

/// Everything that was asked, measured and decided.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What is to be served.
    pub model: Model,
    /// What was asked for.
    pub budgets: Budgets,
    /// The decision.
    pub outcome: Outcome,
    /// Who asks when.
    pub traffic: Traffic,
    /// What codecs are worth, every item scored.
    pub exact: Vec<Exact>,
    /// What indexes are worth.
    pub indexes: Vec<IndexReport>,
    /// What reading and writing costs.
    pub store: StoreCosts,
    /// The modes side by side.
    pub modes: Vec<ModeReport>,
    /// What was assumed, not measured; what could not be learned.
    pub assumptions: Vec<String>,
}

/// The model.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// Items.
    pub items: u64,
    /// Users with a vector.
    pub users: u64,
    /// Dimensions.
    pub dim: u32,
    /// How users and items are compared.
    pub metric: Metric,
    /// Seconds from one release to the next: as old may the vector be that an answer is made from.
    pub release_every_s: f64,
    /// Users asked when quality was measured.
    pub users_asked: u32,
    /// Users with held-out interactions who were asked.
    pub users_held_out: u32,
    /// Items of an answer.
    pub k: u32,
    /// The server that bytes are predicted for, as it names itself or as it is assumed.
    pub server: String,
}

/// An index that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct IndexReport {
    /// How items are kept.
    pub items: ItemForm,
    /// Items that it was made of: all, or a sample.
    pub of_items: u64,
    /// Bytes of an item in the file.
    pub bytes_per_item: f64,
    /// What it is worth.
    pub served: Vec<Served>,
    /// What searching it costs.
    pub searches: Vec<SearchCost>,
}

/// A mode as it would be run with the plan's codecs and effort.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ModeReport {
    /// The mode.
    pub mode: Mode,
    /// Share of requests that a list answers.
    pub hit_rate: f64,
    /// What a request costs: reading lists, reading vectors, searching, writing lists.
    pub parts: [Cost; 4],
    /// Processor time of the service for a request, in microseconds.
    pub client_us: f64,
    /// Processor time of the store.
    pub server_us: f64,
    /// Requests that a busy core of the service answers in a second, where the store is elsewhere.
    pub requests_per_s_per_core: f64,
    /// Requests that the planning machine answers in a second with the store on it, as busy as it can be.
    pub requests_per_s_of_machine: f64,
    /// Cores of the service that the traffic keeps busy.
    pub busy_cores: f64,
    /// How long one request in a hundred takes, alone, at most; in microseconds.
    pub p99_us: f64,
    /// How long ago an answer may have been computed, in seconds.
    pub freshness_s: f64,
}

/// A mode to be shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModeSpec {
    /// The mode.
    pub mode: Mode,
    /// Where its lists come from.
    pub cache: Cache,
    /// Share of requests that find one.
    pub hit_rate: f64,
    /// How long ago an answer may have been computed, in seconds.
    pub freshness_s: f64,
}

impl ModeReport {
    /// Prices a mode as the solver does. `cores` are those of the machine that it was measured on.
    pub fn of(spec: ModeSpec, costs: &Costs, search: Cost, requests_per_s: f64, cores: usize) -> Self {
        let ModeSpec { mode, cache, hit_rate, freshness_s } = spec;
        let steps = Steps::of(costs, search, cache);
        let cost = steps.request(mode, hit_rate);
        let Cost { client_us, server_us, p99_us, .. } = cost;
        Self {
            mode,
            hit_rate,
            parts: steps.parts(mode, hit_rate),
            client_us,
            server_us,
            requests_per_s_per_core: 1e6 / client_us,
            requests_per_s_of_machine: cost.requests_per_s(cores),
            busy_cores: client_us * requests_per_s / 1e6,
            p99_us,
            freshness_s,
        }
    }
}

/// What is said of a mode.
type Said = fn(&ModeReport, &Report) -> String;

impl Report {
    /// The plan, if there is one.
    pub fn plan(&self) -> Option<&Plan> {
        match &self.outcome {
            Outcome::Fits { plan, .. } => Some(plan),
            Outcome::Nothing { .. } => None,
        }
    }

    /// Whether hit rates are an assumption, as `some` words that name it.
    fn assumed_traffic(&self) -> Option<String> {
        match self.traffic.basis {
            Basis::Log { .. } => None,
            Basis::AssumedZipf { exponent, .. } => Some(format!("assumed: Zipf, exponent {exponent}")),
        }
    }

    /// What is told of each mode: the name, and how it is said.
    fn mode_lines(&self) -> [(String, Said); 9] {
        let (cores, rate) = (self.store.cores, say::count(self.budgets.requests_per_s as u64));
        [
            ("from lists".to_owned(), |mode, _| say::percent(mode.hit_rate)),
            ("processor time of the service".to_owned(), |mode, _| say::us(mode.client_us)),
            ("processor time of the store".to_owned(), |mode, _| say::us(mode.server_us)),
            ("a second, by a core of the service".to_owned(), |mode, _| {
                say::count(mode.requests_per_s_per_core as u64)
            }),
            (format!("a second, by {cores} cores with the store on them"), |mode, _| {
                say::count(mode.requests_per_s_of_machine as u64)
            }),
            (format!("busy cores of the service at {rate} a second"), |mode, _| format!("{:.2}", mode.busy_cores)),
            ("p99 alone".to_owned(), |mode, _| say::us(mode.p99_us)),
            ("answer computed, at most ago".to_owned(), |mode, _| say::age(mode.freshness_s)),
            ("from a vector published, at most ago".to_owned(), |_, report| say::time(report.model.release_every_s)),
        ]
    }

    /// The recall that is asked for.
    fn recall_floor(&self) -> Option<f64> {
        match self.budgets.floor {
            Floor::Recall(floor) => Some(floor),
            Floor::RankingLoss(_) => None,
        }
    }

    /// The TTL of the lists of the plan, whether reads set it anew.
    fn ttl(&self) -> Option<(f64, bool)> {
        match self.plan()?.settings.cache {
            Cache::Store { ttl_s, on_read, .. } => Some((ttl_s, on_read)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn every_form_says_what_is_assumed_and_why_others_were_not_chosen() {
        let report = fixture::fits();
        let json = serde_json::to_string(&report).unwrap();
        for form in [text(&report), html(&report), json] {
            for word in ["rank^-0.8", "int4", "0.9873"] {
                assert!(form.contains(word), "{word} in {form}");
            }
        }
        assert!(text(&report).contains("assumed, not measured"));
        assert!(html(&report).matches("class=\"note\">assumed").count() >= 3);
    }

    #[test]
    fn what_does_not_fit_is_said_with_what_would_help() {
        let report = fixture::nothing();
        for form in [text(&report), html(&report).replace("&gt;", ">")] {
            for word in [
                "95.37 MiB",
                "286.10 MiB",
                "--redis 295.64MiB instead of",
                "--coverage 0.4 instead",
                "--recall 0.91 instead",
            ] {
                assert!(form.contains(word), "{word} in {form}");
            }
        }
    }

    #[test]
    fn the_page_is_well_formed_and_loads_nothing() {
        for report in [fixture::fits(), fixture::nothing()] {
            let page = html(&report);
            for word in ["src=", "href=", "url(", "@import", "<script", "http:", "https:", "NaN", "inf"] {
                assert!(!page.contains(word), "{word}");
            }
            assert!(page.contains("&lt;7.0.15&gt;"), "what others wrote is escaped");
            let mut open: Vec<&str> = Vec::new();
            for tag in page.split('<').skip(1).map(|tag| tag.split('>').next().unwrap()) {
                let name = tag.trim_end_matches('/').split_whitespace().next().unwrap();
                match name.strip_prefix('/') {
                    Some(name) => assert_eq!(open.pop(), Some(name)),
                    None if tag.ends_with('/') || ["!doctype", "meta"].contains(&name) => {}
                    None => open.push(name),
                }
            }
            assert!(open.is_empty(), "{open:?}");
        }
    }
}
