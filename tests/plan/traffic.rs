//! Curves from one pass over a sample of the users are those of caches that were really simulated, request by request,
//! for every user: LRU caches of many sizes, and caches of every TTL.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and prints its errors")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use tonnage::input::{Id, InputError, read_interactions};
use tonnage::plan::traffic::{Recorder, SAMPLED_USERS, TTLS_S, Traffic, TtlPoint, read_log};

/// (user, time), times rising.
type Trace = Vec<(u64, f64)>;

const REQUESTS: usize = 500_000;
const USERS: usize = 100_000;
const DAY: f64 = 86_400.0;
/// Mean absolute error of a curve, at the most.
const BOUND: f64 = 0.02;

/// Numbers from 0 to 1, the same each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws ranks from 0 with probabilities that fall as `(rank + 1)^-exponent`.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=ranks).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self(sums.collect())
    }

    fn draw(&self, dice: &mut Dice) -> usize {
        let at = dice.next() * self.0[self.0.len() - 1];
        self.0.partition_point(|&sum| sum <= at)
    }
}

/// Times of requests over three days, four times as many at noon as at midnight.
fn times(dice: &mut Dice) -> Vec<f64> {
    let mut times: Vec<f64> = Vec::with_capacity(REQUESTS);
    while times.len() < REQUESTS {
        let time = dice.next() * 3.0 * DAY;
        if dice.next() < (1.0 - 0.6 * (std::f64::consts::TAU * time / DAY).cos()) / 1.6 {
            times.push(time);
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

fn zipf(exponent: f64) -> Trace {
    let (mut dice, zipf) = (Dice(1), Zipf::new(USERS, exponent));
    times(&mut dice).into_iter().map(|time| (zipf.draw(&mut dice) as u64, time)).collect()
}

/// Ranks move on by one user every so many requests; at 50, the thousand most active are others after eight hours.
fn drifting(exponent: f64, every: usize) -> Trace {
    let (mut dice, zipf) = (Dice(2), Zipf::new(USERS, exponent));
    let times = times(&mut dice).into_iter().enumerate();
    times.map(|(at, time)| (((zipf.draw(&mut dice) + at / every) % USERS) as u64, time)).collect()
}

/// One request in five is of a program that goes through all users.
fn scanned(exponent: f64) -> Trace {
    let (mut dice, zipf) = (Dice(3), Zipf::new(USERS, exponent));
    let mut next = 0;
    let mut user = |dice: &mut Dice| {
        if dice.next() < 0.2 {
            next = (next + 1) % USERS;
            return next as u64;
        }
        zipf.draw(dice) as u64
    };
    times(&mut dice).into_iter().map(|time| (user(&mut dice), time)).collect()
}

// ---------------------------------------------------------------------------------------------- the slow obvious way

/// Hit rate of one LRU cache: users by the turn of their last request, the first leaves.
fn lru(trace: &Trace, entries: usize) -> f64 {
    let (mut turns, mut order, mut hits) = (HashMap::new(), BTreeMap::new(), 0);
    for (turn, &(user, _)) in trace.iter().enumerate() {
        if let Some(before) = turns.insert(user, turn) {
            hits += 1;
            order.remove(&before);
        }
        order.insert(turn, user);
        if order.len() > entries {
            let (_, last) = order.pop_first().unwrap();
            turns.remove(&last);
        }
    }
    f64::from(hits) / trace.len() as f64
}

/// Hit rate of one cache with a TTL, and its entries: mean, and the most at any minute.
fn ttl(trace: &Trace, ttl_s: f64, on_read: bool) -> (f64, f64, f64) {
    let (mut expiries, mut hits) = (HashMap::<u64, f64>::new(), 0);
    // (from, to) of each entry's life
    let mut lives: Vec<(f64, f64)> = Vec::new();
    let mut current: HashMap<u64, usize> = HashMap::new();
    for &(user, time) in trace {
        let alive = expiries.get(&user).is_some_and(|&expiry| time < expiry);
        hits += usize::from(alive);
        if !alive {
            current.insert(user, lives.len());
            lives.push((time, time + ttl_s));
        }
        if !alive || on_read {
            expiries.insert(user, time + ttl_s);
            lives[current[&user]].1 = time + ttl_s;
        }
    }
    let (first, last) = (trace[0].1, trace[trace.len() - 1].1);
    let lived: f64 = lives.iter().map(|&(from, to)| to.min(last) - from).sum();
    let minutes = ((last - first) / 60.0) as usize + 1;
    let mut changes = vec![0_i64; minutes + 2];
    for (from, to) in lives {
        let minute = |time: f64| ((time - first) / 60.0).ceil() as usize;
        if minute(from) < minute(to.min(last)) {
            changes[minute(from)] += 1;
            changes[minute(to.min(last))] -= 1;
        }
    }
    let mut now = 0;
    let peak = changes.iter().map(|change| {
        now += change;
        now
    });
    (hits as f64 / trace.len() as f64, lived / (last - first), peak.max().unwrap() as f64)
}

// ---------------------------------------------------------------------------------------------- the comparison

struct Errors {
    lru: f64,
    on_read: f64,
    on_write: f64,
    /// Relative, of mean and of most entries, over TTLs that hold a hundred at least.
    resident: f64,
    peak: f64,
}

fn errors(trace: &Trace, traffic: &Traffic) -> Errors {
    let most = trace.iter().map(|&(user, _)| user).collect::<std::collections::HashSet<_>>().len();
    let sizes: Vec<usize> = (1..=12).map(|part| most * part * part / 144).collect();
    let lru_off = sizes.iter().map(|&size| (traffic.lru_hit_rate(size as u64) - lru(trace, size)).abs());
    let mut errors = Errors { lru: mean(lru_off), on_read: 0.0, on_write: 0.0, resident: 0.0, peak: 0.0 };
    for (points, on_read) in [(&traffic.ttl_on_read, true), (&traffic.ttl_on_write, false)] {
        assert_eq!(points.len(), TTLS_S.iter().filter(|&&ttl_s| ttl_s < 2.99 * DAY).count());
        let exact: Vec<(&TtlPoint, (f64, f64, f64))> =
            points.iter().map(|point| (point, ttl(trace, point.ttl_s, on_read))).collect();
        let off = mean(exact.iter().map(|(point, (hit_rate, ..))| (point.hit_rate - hit_rate).abs()));
        *(if on_read { &mut errors.on_read } else { &mut errors.on_write }) = off;
        let relative = |got: f64, expected: f64| (got / expected - 1.0).abs();
        let held = exact.iter().filter(|(_, (_, resident, _))| *resident >= 100.0);
        errors.resident = errors
            .resident
            .max(mean(held.clone().map(|(point, (_, resident, _))| relative(point.resident, *resident))));
        errors.peak = errors.peak.max(mean(held.map(|(point, (.., peak))| relative(point.resident_peak, *peak))));
    }
    errors
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value));
    sum / f64::from(count)
}

/// Compares, prints, and asserts.
fn judge(name: &str, trace: &Trace, traffic: &Traffic, followed: usize) {
    let Errors { lru, on_read, on_write, resident, peak } = errors(trace, traffic);
    println!(
        "{name}, {followed} users followed: mean absolute error of the hit rate {lru:.4} (LRU), {on_read:.4} (TTL on \
         read), {on_write:.4} (TTL on write); of entries {:.1} % (mean), {:.1} % (peak)",
        resident * 100.0,
        peak * 100.0
    );
    for (what, error) in [("LRU", lru), ("TTL on read", on_read), ("TTL on write", on_write)] {
        assert!(error <= BOUND, "{name}, {followed} followed: {what} is off by {error}");
    }
    assert!(resident <= 0.1 && peak <= 0.1, "{name}, {followed} followed: entries {resident}, {peak}");
}

fn record(trace: &Trace, followed: usize) -> Traffic {
    let mut recorder = Recorder::new(followed);
    trace.iter().for_each(|&(user, time)| recorder.push(Id::U64(user), time));
    recorder.finish().unwrap()
}

fn judge_trace(name: &str, trace: &Trace) {
    for followed in [SAMPLED_USERS, SAMPLED_USERS / 4] {
        judge(name, trace, &record(trace, followed), followed);
    }
}

#[test]
fn a_zipf_trace() {
    judge_trace("Zipf 0.8", &zipf(0.8));
}

#[test]
fn a_drifting_trace() {
    judge_trace("Zipf 1.1 with drift", &drifting(1.1, 50));
}

#[test]
fn a_trace_with_scans() {
    judge_trace("Zipf 0.9 with scans", &scanned(0.9));
}

#[test]
fn the_debian_users_replayed() {
    // the more packages a user asks for, the more requests
    let train = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/debian/train.parquet");
    let mut counts = BTreeMap::<String, usize>::new();
    read_interactions(&train, |user, _| {
        *counts.entry(user.to_string()).or_default() += 1;
        Ok::<_, InputError>(())
    })
    .unwrap();
    let mut users: Vec<(usize, String)> = counts.into_iter().map(|(user, count)| (count, user)).collect();
    users.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let (mut dice, zipf) = (Dice(4), Zipf::new(users.len(), 1.0));
    let trace: Trace = times(&mut dice).into_iter().map(|time| (zipf.draw(&mut dice) as u64, time)).collect();
    let mut log = String::from("user,time\n");
    trace.iter().for_each(|&(user, time)| writeln!(log, "{},{time}", users[user as usize].1).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    std::fs::write(&path, log).unwrap();
    let traffic = read_log(&path).unwrap();
    judge("Debian", &trace, &traffic, SAMPLED_USERS);
    let named: Vec<&str> = traffic.hot.iter().take(3).map(|hot| hot.id.as_str()).collect();
    assert_eq!(named, [users[0].1.as_str(), &users[1].1, &users[2].1]);
    judge("Debian", &trace, &record(&trace, 4096), 4096);
}

#[test]
fn kept_users_make_the_share_of_later_requests_that_was_promised() {
    // ranked by what the log says, judged by what comes after it
    for (name, trace) in [("Zipf 0.8", zipf(0.8)), ("Zipf 1.1 with drift", drifting(1.1, 500))] {
        let (past, future) = trace.split_at(trace.len() * 3 / 4);
        let traffic = record(&past.to_vec(), SAMPLED_USERS);
        let half_life = traffic.kept_half_life_s.unwrap_or(f64::INFINITY);
        let end = past[past.len() - 1].1;
        let mut scores = HashMap::<u64, f64>::new();
        past.iter().for_each(|&(user, time)| *scores.entry(user).or_default() += (-(end - time) / half_life).exp2());
        let mut order: Vec<(u64, f64)> = scores.into_iter().collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for kept in [2_000, 10_000, 30_000] {
            let chosen: std::collections::HashSet<u64> = order[..kept].iter().map(|&(user, _)| user).collect();
            let got = future.iter().filter(|(user, _)| chosen.contains(user)).count() as f64 / future.len() as f64;
            let promised = traffic.kept_share(kept as u64, USERS as u64);
            println!(
                "{name}: {kept} kept make {got:.3} of later requests, {promised:.3} promised (half-life {half_life})"
            );
            assert!((got - promised).abs() <= 0.05, "{name}, {kept}: {got} for {promised}");
        }
        // users who leave are worth less than users who stay
        assert_eq!(traffic.kept_half_life_s.is_some(), name.contains("drift"));
    }
}

#[test]
fn strange_logs_are_refused_or_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    for log in ["user,time\n", "user,time\na,5\n", "user,time\na,5\nb,64\n"] {
        std::fs::write(&path, log).unwrap();
        let message = read_log(&path).unwrap_err().to_string();
        assert!(message.contains("log.csv: expected requests that span a minute"), "{message}");
    }
    // all at once, one user, then a thousand years of nothing
    let mut recorder = Recorder::new(0);
    for at in 0..1000 {
        recorder.push(Id::Text("x"), if at % 2 == 0 { f64::NAN } else { 7.0 });
    }
    recorder.push(Id::U64(u64::MAX), 3e10);
    let traffic = recorder.finish().unwrap();
    let points = traffic.ttl_on_read.iter().chain(&traffic.ttl_on_write);
    assert!(points.clone().count() > 0);
    points.for_each(|point| {
        assert!((0.0..=1.0).contains(&point.hit_rate) && point.resident <= point.resident_peak, "{point:?}");
    });
    // the same log gives the same numbers
    let trace: Trace = zipf(0.8).into_iter().take(50_000).collect();
    assert_eq!(record(&trace, 1000), record(&trace, 1000));
}
