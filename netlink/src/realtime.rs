//! Threads that are not kept waiting: those that answer within a time, whatever else the machine does.

use std::io;

/// Gives the calling thread the lowest of the real-time priorities (sched(7)): it runs as soon as it has
/// something to do, before all ordinary threads, and takes turns with others of its kind. What it starts is
/// ordinary again.
///
/// # Errors
/// Without the capability SYS_NICE, and where the control group has no real-time budget.
#[allow(unsafe_code, reason = "no safe wrapper sets a scheduling policy")]
pub fn prefer_this_thread() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters are a whole, live structure, which the call only reads; 0 is the calling thread.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_that_asks_is_preferred_and_no_other() {
        let policy = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Behind the name: the 41st field of all is the policy (proc(5)).
            stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().to_owned()
        };
        let asked = std::thread::spawn(move || prefer_this_thread().map(|()| policy())).join().unwrap();
        match asked {
            Ok(policy) => assert_eq!(policy, "2", "SCHED_RR"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
        assert_eq!(policy(), "0", "SCHED_OTHER");
    }
}
