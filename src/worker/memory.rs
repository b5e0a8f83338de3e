//! How much memory steps could still get, as the kernel says it.

use std::fs;

/// Available memory in bytes: of the machine, or less where a control group around rbuild has a limit.
pub(super) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemAvailable:"))? * 1024;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // What a container sees as its root: version 2, version 1.
    let groups = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
            "/sys/fs/cgroup/memory/memory.stat",
            "total_inactive_file",
        ),
    ];
    let left = groups.into_iter().filter_map(|(limit, used, stat, cache)| {
        let cache = fs::read_to_string(stat).ok().and_then(|text| field(&text, cache)).unwrap_or(0);
        Some(number(limit)?.saturating_sub(number(used)?).saturating_add(cache))
    });
    Some(left.fold(machine, u64::min))
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(' ')))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let text = "MemTotal:       16000 kB\nMemAvailable:    4000 kB\ninactive_file 12\ninactive 7\n";
        assert_eq!(field(text, "MemAvailable:"), Some(4000));
        assert_eq!(
            (field(text, "inactive"), field(text, "inactive_file"), field(text, "Mem")),
            (Some(7), Some(12), None)
        );
    }

    #[test]
    fn this_machine_has_some() {
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
