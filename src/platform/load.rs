//! How busy the machine is, as the kernel tells in `/proc`. What cannot be read is 0.

use std::fs;

/// What a person wants to know of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Processes that ran or waited to, on average of the last 1, 5 and 15 minutes.
    pub averages: [f32; 3],
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes that could be had without swapping.
    pub memory_available: u64,
    /// Threads of this process.
    pub threads: u64,
    /// Threads that the system allows.
    pub threads_max: u64,
}

/// Now.
#[must_use]
pub fn load() -> Load {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut averages = [0.0; 3];
    let text = read("/proc/loadavg");
    for (average, word) in averages.iter_mut().zip(text.split_ascii_whitespace()) {
        *average = word.parse().unwrap_or_default();
    }
    let memory = read("/proc/meminfo");
    let of = |name| 1024 * field(&memory, name);
    Load {
        averages,
        memory: of("MemTotal:"),
        memory_available: of("MemAvailable:"),
        threads: field(&read("/proc/self/status"), "Threads:"),
        threads_max: read("/proc/sys/kernel/threads-max")
            .trim()
            .parse()
            .unwrap_or_default(),
    }
}

/// The number behind `name` at the start of a line.
pub(super) fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_this_process_threads() {
        let load = load();
        assert!(load.memory > load.memory_available && load.memory_available > 0);
        assert!(load.threads >= 1 && load.threads_max > load.threads);
        assert_eq!(field("A: 1 kB\nAB: 2 kB\n", "AB:"), 2);
        assert_eq!(field("A: x\n", "A:"), 0);
    }
}
