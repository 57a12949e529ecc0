//! What a service says of itself, for Prometheus.
//!
//! The one thing to know: label values come from fixed sets, never from a request, so that nobody can make the number of
//! series grow.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::{Answer, Degraded, Rung};
use crate::kv::KvError;

/// Upper bounds in seconds: a tenth of a millisecond to five seconds, about three a decade.
const SECONDS: [f64; 15] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// A value of a label: one of a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        std::fmt::Write::write_str(encoder, self.0)
    }
}

macro_rules! labels {
    ($($name:ident { $($label:ident),+ })+) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub $label: Word),+ })+
    };
}
labels! {
    OfAnswer { route, status }
    OfStage { stage }
    OfRung { rung }
    OfReason { reason }
    OfCall { call }
    OfCallError { call, error }
    OfOutcome { outcome }
}

/// A call to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// That changes nothing.
    Read,
    /// That does.
    Write,
}

impl Call {
    fn word(self) -> Word {
        Word(if self == Self::Read { "read" } else { "write" })
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// All of it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) answers: Family<OfAnswer, Counter>,
    pub(super) latency: Family<OfAnswer, Histogram, fn() -> Histogram>,
    stages: Family<OfStage, Histogram, fn() -> Histogram>,
    rungs: Family<OfRung, Counter>,
    degraded: Family<OfReason, Counter>,
    short: Family<OfReason, Counter>,
    pub(super) refused: Family<OfReason, Counter>,
    pub(super) cached: Counter,
    store_seconds: Family<OfCall, Histogram, fn() -> Histogram>,
    store_errors: Family<OfCallError, Counter>,
    pub(super) breaker_open: Gauge,
    pub(super) pending: Gauge,
    pub(super) in_flight: Gauge,
    pub(super) connections: Gauge,
    pub(super) body_bytes: Gauge,
    pub(super) effort: Gauge<f64, AtomicU64>,
    pub(super) wait_seconds: Gauge<f64, AtomicU64>,
    pub(super) reloads: Family<OfOutcome, Counter>,
    pub(super) index_loaded: Gauge<f64, AtomicU64>,
    pub(super) index_bytes: Gauge,
    pub(super) index_items: Gauge<i64, AtomicI64>,
    pub(super) filter_bytes: Gauge,
    pub(super) added_items: Gauge,
    pub(super) recall: Gauge<f64, AtomicU64>,
    pub(super) probes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tonnage"),
            answers: Family::default(),
            latency: Family::new_with_constructor(seconds),
            stages: Family::new_with_constructor(seconds),
            rungs: Family::default(),
            degraded: Family::default(),
            short: Family::default(),
            refused: Family::default(),
            cached: Counter::default(),
            store_seconds: Family::new_with_constructor(seconds),
            store_errors: Family::default(),
            breaker_open: Gauge::default(),
            pending: Gauge::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            body_bytes: Gauge::default(),
            effort: Gauge::default(),
            wait_seconds: Gauge::default(),
            reloads: Family::default(),
            index_loaded: Gauge::default(),
            index_bytes: Gauge::default(),
            index_items: Gauge::default(),
            filter_bytes: Gauge::default(),
            added_items: Gauge::default(),
            recall: Gauge::default(),
            probes: Counter::default(),
        };
        metrics.effort.set(1.0);
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("answers", "Requests answered, by route and status", self.answers.clone());
        let help = "From a request's head to its answer, refusals apart by their status";
        registry.register_with_unit("latency", help, Unit::Seconds, self.latency.clone());
        let help = "Where a recommendation's time went";
        registry.register_with_unit("stage", help, Unit::Seconds, self.stages.clone());
        registry.register("rungs", "What recommendations were ranked by", self.rungs.clone());
        registry.register("degraded", "What was not as it should be", self.degraded.clone());
        registry.register("short", "Answers with fewer items than asked for, by reason", self.short.clone());
        registry.register("refused", "Requests that were refused for want of time", self.refused.clone());
        registry.register("cached", "Recommendations whose candidates were in the cache", self.cached.clone());
        let help = "Calls to the store";
        registry.register_with_unit("store", help, Unit::Seconds, self.store_seconds.clone());
        registry.register("store_errors", "Calls to the store that failed", self.store_errors.clone());
        registry.register("breaker_open", "1 while the store is left alone", self.breaker_open.clone());
        registry.register("pending", "Requests that wait for a processor or have one", self.pending.clone());
        registry.register("in_flight", "Requests in flight", self.in_flight.clone());
        registry.register("connections", "Connections", self.connections.clone());
        registry.register_with_unit("body", "Bodies of requests that are here", Unit::Bytes, self.body_bytes.clone());
        registry.register("effort", "1 for all, 0 for the least that the recall floor allows", self.effort.clone());
        let help = "What a request would have to wait for a processor";
        registry.register_with_unit("wait", help, Unit::Seconds, self.wait_seconds.clone());
        registry.register("reloads", "Releases that were to be taken up, by outcome", self.reloads.clone());
        let help = "When the index that is served was taken up, in seconds since 1970";
        registry.register_with_unit("index_loaded", help, Unit::Seconds, self.index_loaded.clone());
        registry.register_with_unit("index", "Size of the index", Unit::Bytes, self.index_bytes.clone());
        registry.register("index_items", "Items of the index", self.index_items.clone());
        registry.register_with_unit(
            "filter",
            "Bitmaps of filters that are kept",
            Unit::Bytes,
            self.filter_bytes.clone(),
        );
        let help = "Items added since the index was built";
        registry.register("added_items", help, self.added_items.clone());
        let help = "Share of the exact answers that were answered, of the last hundred probes";
        registry.register_with_unit("recall", help, Unit::Ratios, self.recall.clone());
        registry.register("probes", "Searches that were answered exactly as well", self.probes.clone());
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // writing to a string does not fail
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(super) fn answered(&self, answer: &Answer) {
        let ns = [
            ("resolve", answer.timings.resolve_ns),
            ("blend", answer.timings.blend_ns),
            ("search", answer.timings.search_ns),
            ("rank", answer.timings.rank_ns),
        ];
        for (stage, ns) in ns {
            self.stages.get_or_create(&OfStage { stage: Word(stage) }).observe(ns as f64 / 1e9);
        }
        self.rungs.get_or_create(&OfRung { rung: Word(Rung::name(answer.vector.rung)) }).inc();
        for degraded in &answer.degraded {
            self.degraded.get_or_create(&OfReason { reason: Word(Degraded::name(*degraded)) }).inc();
        }
        if let Some(short) = &answer.shortfall {
            self.short.get_or_create(&OfReason { reason: Word(short.reason.name()) }).inc();
        }
        if answer.cached {
            self.cached.inc();
        }
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&OfReason { reason: Word(reason) }).inc();
    }

    pub(super) fn store_called(&self, call: Call, took: Duration, error: Option<&KvError>) {
        self.store_seconds.get_or_create(&OfCall { call: call.word() }).observe(took.as_secs_f64());
        if let Some(error) = error {
            self.store_failed(call, error);
        }
    }

    /// A call failed, or a part of it.
    pub(super) fn store_failed(&self, call: Call, error: &KvError) {
        let word = match error {
            KvError::Unavailable { .. } => "unavailable",
            KvError::TimedOut { .. } => "timed_out",
            KvError::OutOfMemory { .. } => "out_of_memory",
            KvError::WrongType { .. } | KvError::Refused { .. } => "refused",
            _ => "other",
        };
        self.store_errors.get_or_create(&OfCallError { call: call.word(), error: Word(word) }).inc();
    }

    pub(super) fn store_refused(&self, call: Call) {
        self.store_errors.get_or_create(&OfCallError { call: call.word(), error: Word("left_alone") }).inc();
    }

    pub(super) fn done(&self, route: &'static str, status: u16, took: Duration) {
        let labels = OfAnswer { route: Word(route), status: Word(status_word(status)) };
        self.answers.get_or_create(&labels).inc();
        self.latency.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// Statuses that a service answers with, as texts that live for ever.
fn status_word(status: u16) -> &'static str {
    match status {
        200 => "200",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::Kind;
    use super::*;

    #[test]
    fn every_status_of_a_problem_has_a_word() {
        for kind in Kind::ALL {
            let status = kind.says().2;
            assert_eq!(status_word(status.as_u16()), status.as_str());
        }
    }

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.done("recommend", 200, Duration::from_micros(150));
        metrics.refused("busy");
        let home = "redis://127.0.0.1:6379".to_owned();
        metrics.store_called(Call::Read, Duration::ZERO, Some(&KvError::TimedOut { home, limit_ms: 5 }));
        let text = metrics.text();
        for line in [
            "tonnage_answers_total{route=\"recommend\",status=\"200\"} 1",
            "tonnage_latency_seconds_bucket{le=\"0.0002\",route=\"recommend\",status=\"200\"} 1",
            "tonnage_refused_total{reason=\"busy\"} 1",
            "tonnage_store_errors_total{call=\"read\",error=\"timed_out\"} 1",
            "tonnage_effort 1.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
