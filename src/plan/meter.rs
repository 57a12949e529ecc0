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
    /// What all cores of the machine had nothing to do, together; nothing where the system does not say.
    pub idle: Duration,
}

/// A clock that runs.
pub(super) struct Meter {
    wall: Instant,
    cpu: Option<Duration>,
    idle: Option<Duration>,
}

impl Meter {
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: process_time(), idle: idle_time() }
    }

    pub fn stop(&self) -> Spent {
        let wall = self.wall.elapsed();
        let cpu = self.cpu.zip(process_time()).map(|(from, to)| to.saturating_sub(from));
        let idle = self.idle.zip(idle_time()).map_or(Duration::ZERO, |(from, to)| to.saturating_sub(from));
        Spent { wall, cpu, idle }
    }
}

impl Spent {
    /// What so many cores took, or as much as it can have been.
    pub fn busy(&self, cores: usize) -> Duration {
        self.cpu.unwrap_or(self.wall * cores as u32)
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

/// Time that cores had nothing to run, or waited for a disk: the fourth and fifth number of the first line, in hundredths of
/// a second on every machine.
fn idle_time() -> Option<Duration> {
    let text = read_to_string("/proc/stat").ok()?;
    let of_all = text.lines().next()?.split_whitespace().skip(4).take(2);
    let ticks = of_all.map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Duration::from_millis(10 * ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processor time of this thread alone.
    fn thread_time() -> Option<Duration> {
        let text = read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }

    #[test]
    fn waiting_takes_wall_time_and_working_is_counted_by_the_processor() {
        let waiting = Meter::start();
        std::thread::sleep(Duration::from_millis(60));
        assert!(waiting.stop().wall >= Duration::from_millis(60));
        if !cfg!(target_os = "linux") {
            return; // nothing else tells it
        }
        // Threads of other tests may run, or end and take their time with them: one stretch without an end is enough.
        let counted = (0..50).any(|_| {
            let (working, begun) = (Meter::start(), thread_time().unwrap_or_default());
            while thread_time().is_some_and(|now| now.saturating_sub(begun) < Duration::from_millis(20)) {
                std::hint::spin_loop();
            }
            let spent = working.stop();
            spent.cpu == Some(spent.busy(1)) && spent.busy(1).min(spent.wall) >= Duration::from_millis(20)
        });
        assert!(counted, "work was not counted");
    }
}
