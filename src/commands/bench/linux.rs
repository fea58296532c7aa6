//! What Linux says of processes: memory, and the processor's time. None on other systems.

use std::fs;

/// Memory of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Memory {
    /// Most that it ever had, in MB.
    pub(super) peak: f64,
    /// What it has, in MB.
    pub(super) now: f64,
}

/// The memory of a process.
pub(super) fn memory(process: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    Some(Memory { peak: megabytes(&status, "VmHWM:")?, now: megabytes(&status, "VmRSS:")? })
}

/// The parent of a process.
pub(super) fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Milliseconds of the processor that a process and its children have had, those that have ended too.
pub(super) fn family_time(process: u32) -> Option<f64> {
    let mut ticks = 0;
    let mut seen = false;
    for entry in fs::read_dir("/proc").ok()? {
        let Some(number) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) else { continue };
        let Some(times) = fs::read_to_string(format!("/proc/{number}/stat")).ok().and_then(|stat| times(&stat)) else { continue };
        if number == process {
            seen = true;
            ticks += times.own + times.ended_children;
        } else if times.parent == process {
            ticks += times.own;
        }
    }
    seen.then(|| ticks as f64 * 1000.0 / rustix::param::clock_ticks_per_second() as f64)
}

struct Times {
    parent: u32,
    own: u64,
    ended_children: u64,
}

/// Reads `/proc/N/stat`: the second field is a name in brackets that may hold anything.
fn times(stat: &str) -> Option<Times> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Times {
        parent: u32::try_from(number(1)?).ok()?,
        own: number(11)? + number(12)?,
        ended_children: number(13)? + number(14)?,
    })
}

fn megabytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1_000_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_stand_behind_a_name_that_may_hold_anything() {
        let stat = "23 (post) gres: a) S 7 23 23 0 -1 4194560 1 2 3 4 50 6 700 80 20 0 1 0 99";
        let times = times(stat).unwrap();
        assert_eq!((times.parent, times.own, times.ended_children), (7, 56, 780));
        assert!(super::times("23 (x").is_none());
    }

    #[test]
    fn memory_is_read_in_megabytes() {
        let status = "VmPeak:\t  9 kB\nVmHWM:\t  1000 kB\nVmRSS:\t     500 kB\n";
        assert_eq!(megabytes(status, "VmHWM:"), Some(1.024));
        assert_eq!(megabytes(status, "VmSwap:"), None);
    }
}
