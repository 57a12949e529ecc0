//! Leaves a store alone that does not answer, so that nobody waits for what will not come.
//!
//! The one thing to know: while it is open one caller a pause is let through, and if that one is answered all are.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Closed until so many calls in a row have failed, then open but for one try a pause.
#[derive(Debug)]
pub struct Breaker {
    began: Instant,
    most_failures: u32,
    pause_us: u64,
    failures: AtomicU32,
    /// When the next try may be, in microseconds since `began`; 0 while closed.
    next_try_us: AtomicU64,
}

impl Breaker {
    /// A closed one.
    pub fn new(most_failures: u32, pause: Duration) -> Self {
        let pause_us = pause.as_micros() as u64;
        let (failures, next_try_us) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { began: Instant::now(), most_failures, pause_us, failures, next_try_us }
    }

    /// Whether a call may be made now. Whoever is let through says how it went.
    pub fn lets(&self) -> bool {
        let at = self.next_try_us.load(Relaxed);
        if at == 0 {
            return true;
        }
        let now = self.now_us();
        now >= at && self.next_try_us.compare_exchange(at, now + self.pause_us, Relaxed, Relaxed).is_ok()
    }

    /// A call was answered.
    pub fn succeeded(&self) {
        // written only when it changes something: the cache line is shared by all threads
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.is_open() {
            self.next_try_us.store(0, Relaxed);
        }
    }

    /// A call was not answered.
    pub fn failed(&self) {
        let failures = self.failures.load(Relaxed).saturating_add(1);
        self.failures.store(failures, Relaxed);
        if failures >= self.most_failures {
            self.next_try_us.store(self.now_us() + self.pause_us, Relaxed);
        }
    }

    /// Whether callers are kept away.
    pub fn is_open(&self) -> bool {
        self.next_try_us.load(Relaxed) != 0
    }

    /// Never 0, which stands for closed.
    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(1 << 20);

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it() {
        let breaker = Breaker::new(3, NEVER);
        for _ in 0..10 {
            breaker.failed();
            breaker.failed();
            breaker.succeeded();
        }
        assert!(breaker.lets() && !breaker.is_open(), "never three in a row");
        (0..3).for_each(|_| breaker.failed());
        assert!(breaker.is_open() && !breaker.lets());
        // a call that was under way when it opened is answered
        breaker.succeeded();
        assert!(breaker.lets() && !breaker.is_open());
    }

    #[test]
    fn after_a_pause_one_is_let_through() {
        let breaker = Breaker::new(1, Duration::ZERO);
        breaker.failed();
        assert!(breaker.is_open() && breaker.lets(), "the pause is over at once");
        let breaker = Breaker { pause_us: NEVER.as_micros() as u64, ..Breaker::new(1, NEVER) };
        breaker.next_try_us.store(1, Relaxed);
        let let_through = (0..100).filter(|_| breaker.lets()).count();
        assert_eq!(let_through, 1);
        breaker.failed();
        assert!(!breaker.lets());
    }
}
