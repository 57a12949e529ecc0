//! How much processor time something takes, by the clock of the processor and not of the wall.
//!
//! A service's cores are filled by what its requests compute, not by what they wait for, and other processes of a
//! machine make the one longer and hardly the other.

use std::fs::{read_dir, read_to_string};
use std::time::{Duration, Instant};

/// A stretch of work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    /// By the wall.
    pub wall: Duration,
    /// By the processor, all threads of this process; `None` where the system does not say.
    pub cpu: Option<Duration>,
}

/// A clock that runs.
pub(super) struct Meter {
    wall: Instant,
    cpu: Option<Duration>,
}

impl Meter {
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: process_time() }
    }

    pub fn stop(&self) -> Spent {
        let wall = self.wall.elapsed();
        let cpu = self.cpu.zip(process_time()).map(|(from, to)| to.saturating_sub(from));
        Spent { wall, cpu }
    }
}

impl Spent {
    /// What the processor took, or as much as it can have been.
    pub fn busy(&self) -> Duration {
        self.cpu.unwrap_or(self.wall)
    }
}

/// Processor time of all threads that live. A thread that runs is accounted for at every tick, of 1 to 10 ms, and when
/// it sleeps; so this one sleeps for a moment.
fn process_time() -> Option<Duration> {
    std::thread::sleep(Duration::from_micros(1));
    let mut sum = 0;
    for task in read_dir("/proc/self/task").ok()? {
        let Ok(text) = read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        sum += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_takes_wall_time_only_and_working_takes_both() {
        let meter = Meter::start();
        std::thread::sleep(Duration::from_millis(60));
        let spent = meter.stop();
        assert!(spent.wall >= Duration::from_millis(60));
        let meter = Meter::start();
        while meter.wall.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let worked = meter.stop();
        if cfg!(target_os = "linux") {
            // other tests of this process may be working at the same time: only what is surely so is asserted
            assert!(worked.cpu.is_some() && spent.cpu.is_some());
            assert!(worked.busy() > Duration::ZERO);
        }
    }
}
