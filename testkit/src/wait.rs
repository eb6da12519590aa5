//! Waiting for a condition, with a deadline that is only met when something is wrong.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take that is no test's subject: machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until something holds; panics after [`PATIENCE`].
#[track_caller]
pub fn eventually(what: impl Display, mut holds: impl FnMut() -> bool) {
    eventually_ok(what, || if holds() { Ok(()) } else { Err("it does not hold") });
}

/// Waits until an attempt succeeds, and gives its value; panics after [`PATIENCE`] with what stood in the way
/// last.
#[track_caller]
pub fn eventually_ok<T, E: Display>(what: impl Display, attempt: impl FnMut() -> Result<T, E>) -> T {
    attempt_for(PATIENCE, what, attempt).unwrap_or_else(|late| panic!("{late}"))
}

/// The same within a time of its own, and with an error in the place of the panic.
///
/// # Errors
/// What was waited for and what stood in the way last, in words.
pub fn attempt_for<T, E: Display>(
    patience: Duration,
    what: impl Display,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() > deadline => {
                return Err(format!("{what}: not within {} s: {seen}", patience.as_secs()));
            }
            Err(_) => sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_given_as_soon_as_there_is_one() {
        let mut left = 3;
        let value = eventually_ok("a countdown", || {
            left -= 1;
            if left == 0 { Ok("now") } else { Err(left) }
        });
        assert_eq!(value, "now");
    }

    #[test]
    fn what_stood_in_the_way_is_told() {
        let late = attempt_for(Duration::ZERO, "a pod", || Err::<(), _>("no address"));
        assert_eq!(late, Err("a pod: not within 0 s: no address".to_owned()));
    }
}
