//! A clock that nobody sets and that runs through suspension: what a lease's holder uses to stop early.

use std::time::Duration;

/// Time since some fixed point.
///
/// On Linux the boot clock, since the monotonic one stands still while the machine sleeps and the lease does not.
pub(super) fn now() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
