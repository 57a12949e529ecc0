//! How much memory there is.

use std::fs::read_to_string;

/// Bytes that pages of a file may take before the system must evict some, as far as it tells: what the machine has
/// available, or the limit of the control group that this process is in, whichever is less.
pub fn available_bytes() -> Option<u64> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
    });
    let group = control_group().and_then(|folder| {
        let number = |name: &str| read_to_string(format!("{folder}/{name}")).ok()?.trim().parse::<u64>().ok();
        number("memory.max").or_else(|| number("memory.limit_in_bytes"))
    });
    [machine, group].into_iter().flatten().min()
}

/// The folder of this process's memory control group: of version 2, or of version 1.
fn control_group() -> Option<String> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some(format!("/sys/fs/cgroup{path}")),
            _ if controllers.split(',').any(|name| name == "memory") => Some(format!("/sys/fs/cgroup/memory{path}")),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn some_memory_is_available_and_less_than_there_could_be() {
        let bytes = super::available_bytes().unwrap();
        assert!((1 << 20..1 << 50).contains(&bytes), "{bytes}");
    }
}
