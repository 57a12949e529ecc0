//! A plan and what it rests on, for tests: made up, and like what comes out for a small shop.

use super::cost::{Op, SearchCost, StoreCosts};
use super::modes::Mode;
use super::quality::{Exact, ItemForm, Served, Worth};
use super::report::{IndexReport, ModeReport, ModeSpec, Model, Report};
use super::traffic::Traffic;
use super::{
    Budgets, Cache, Change, Component, Constraint, Cost, Criterion, Entry, Estimate, Outcome, Pages, Plan, Predicted,
    Publishing, Reason, Rejected, Relaxation, Settings, Violation,
};
use crate::codec::{Codec, Metric};

pub fn plan() -> Plan {
    Plan {
        settings: Settings {
            mode: Mode::Hybrid,
            cache: Cache::Store { entry: Entry::Lists, ttl_s: 3600.0, on_read: false },
            items: ItemForm { codec: Codec::Int8, finer: Some(Codec::Int8) },
            users: Codec::Int8,
            ef: 32,
            pages: Some(Pages::Hashed { mean_users: 103.5 }),
            users_kept: 2_000_000,
            publishing: Publishing::Beside,
            shards: 1,
            replicas: 1,
            releases_kept: 1,
            maxmemory_bytes: 2 << 30,
            maxmemory_policy: "volatile-lru".to_owned(),
        },
        predicted: Predicted {
            recall: estimate(0.9873),
            ranking_loss: Some(0.004),
            coverage: 1.0,
            hit_rate: 0.412,
            freshness_s: 3600.0,
            rest_bytes: 900 << 20,
            peak_bytes: 1250 << 20,
            components: vec![
                component("active release", 152, 152),
                component("kept release", 152, 152),
                component("new release", 0, 152),
                component("lists", 520, 520),
                component("tables", 40, 210),
                component("server", 36, 64),
            ],
            node_ram_bytes: 1690 << 20,
            local_ram_bytes: 410 << 20,
            client_us: 18.4,
            server_us: 2.1,
            p99_ms: 0.21,
            requests_per_s_per_core: 54_000.0,
            serving_cores: 1,
            cores: 3,
            days_until_full: Some(412),
        },
        traffic: Traffic::assumed_zipf(2_000_000, 0.8, 1200.0).basis,
    }
}

fn component(name: &str, rest: u64, peak: u64) -> Component {
    Component { name: name.to_owned(), rest_bytes: rest << 20, peak_bytes: peak << 20 }
}

fn estimate(mean: f64) -> Estimate {
    Estimate { mean, low: mean - 0.004, high: (mean + 0.004).min(1.0), users: 2000 }
}

fn worth(recall: f64) -> Worth {
    let share = |x: f64| Some(estimate(x * recall));
    Worth { recall: estimate(recall), hit_rate: share(0.57), ndcg: share(0.38), ndcg_lost: Some(1.01 - recall) }
}

pub fn fits() -> Report {
    let violates = |constraint, allowed, needed| Reason::Violates(vec![Violation { constraint, allowed, needed }]);
    let rejected = |setting: &str, alternative: &str, reason| Rejected {
        setting: setting.to_owned(),
        alternative: alternative.to_owned(),
        reason,
    };
    let rejected = vec![
        rejected("mode", "offline", violates(Constraint::Freshness, 3600.0, 86_400.0)),
        rejected("mode", "real time", Reason::Worse { criterion: Criterion::Cores, plan: 3.0, got: 4.0 }),
        rejected("users", "f32", violates(Constraint::StoreBytes, 2_040_109_465.0, 2_931_000_000.0)),
        rejected("users", "int4", violates(Constraint::Quality, 0.95, 0.9131)),
        rejected("items", "int4", violates(Constraint::Quality, 0.95, 0.9173)),
        rejected("items", "f16", Reason::Worse { criterion: Criterion::LocalRam, plan: 4.3e8, got: 7.1e8 }),
    ];
    report(Outcome::Fits { plan: Box::new(plan()), rejected })
}

pub fn nothing() -> Report {
    let short = Violation { constraint: Constraint::StoreBytes, allowed: 1e8, needed: 3e8 };
    let change = |constraint, from, to| Change { constraint, from, to };
    let relaxations = vec![
        Relaxation { changes: vec![change(Constraint::StoreBytes, 1e8, 3.1e8)], relative: 2.1 },
        Relaxation {
            changes: vec![change(Constraint::Coverage, 0.9, 0.4), change(Constraint::Quality, 0.95, 0.91)],
            relative: 2.4,
        },
    ];
    report(Outcome::Nothing { hopeless: vec![short], relaxations })
}

fn report(outcome: Outcome) -> Report {
    let op = |client_us, server_us, p50_us| {
        let cost = Cost { client_us, server_us, idle_us: server_us / 4.0, p99_us: 2.0 * p50_us };
        Op { cost, p50_us }
    };
    let store = StoreCosts {
        store: "7.0.15".to_owned(),
        server: true,
        by_processor: true,
        cores: 2,
        codec: Codec::Int8,
        list_bytes: 309,
        candidates_bytes: 1359,
        list: op(2.1, 1.1, 20.0),
        candidates: op(3.6, 1.5, 21.0),
        missed: op(2.0, 1.0, 20.0),
        vector: op(9.4, 1.6, 20.0),
        write: op(2.5, 1.8, 20.0),
    };
    let search = op(14.0, 0.0, 14.0);
    let recalls = [0.917, 0.981, 0.991, 0.998, 0.9999, 1.0];
    let exact = ItemForm::ALL.into_iter().zip(recalls).flat_map(|(items, recall)| {
        let codec = move |(users, lost): (Codec, f64)| Exact { items, users, worth: worth(recall - lost) };
        Codec::ALL.into_iter().zip([0.074, 0.006, 0.0001, 0.0]).map(codec)
    });
    let form = ItemForm { codec: Codec::Int8, finer: Some(Codec::Int8) };
    let index = IndexReport {
        items: form,
        of_items: 50_000,
        bytes_per_item: 213.4,
        served: vec![Served { ef: 32, users: Codec::Int8, worth: worth(0.987) }],
        searches: vec![SearchCost { ef: 32, op: search }],
    };
    let budgets = Budgets { maxmemory_bytes: 2 << 30, requests_per_s: 1200.0, ..Budgets::default() };
    let (lists, users) = (Entry::Lists, 2_000_000);
    let modes = [
        (Mode::Offline, Cache::Precomputed { entry: lists, users }, 1.0, 86_400.0),
        (Mode::RealTime, Cache::None, 0.0, 0.0),
        (Mode::Hybrid, Cache::Store { entry: lists, ttl_s: 3600.0, on_read: false }, 0.412, 3600.0),
    ];
    let modes = modes.map(|(mode, cache, hit_rate, freshness_s)| {
        let spec = ModeSpec { mode, cache, hit_rate, freshness_s };
        ModeReport::of(spec, &store.costs(), search.cost, budgets.requests_per_s, store.cores)
    });
    Report {
        model: Model {
            items: 1_000_000,
            users: 2_000_000,
            dim: 64,
            metric: Metric::Dot,
            release_every_s: 86_400.0,
            users_asked: 2000,
            users_held_out: 2000,
            k: 10,
            server: "Redis <7.0.15>".to_owned(),
        },
        budgets,
        outcome,
        traffic: Traffic::assumed_zipf(2_000_000, 0.8, 1200.0),
        exact: exact.collect(),
        indexes: vec![index],
        store,
        modes: modes.into(),
        assumptions: vec!["no log was given (--log): activity of users falls as rank^-0.8".to_owned()],
    }
}
