//! Waiting for a cluster, telling how far it is.

use std::time::{Duration, Instant};

use crate::rollout::Progress;
use crate::{Error, Result};

/// How often the API server is asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks until it is done, and says on standard error what changes meanwhile.
///
/// # Errors
/// [`Error::Timeout`] with what was seen last. An API server that is away for a while is waited for.
pub(crate) async fn until<F: Future<Output = Result<Progress>>>(
    what: &'static str,
    patience: Duration,
    look: impl FnMut() -> F,
) -> Result<()> {
    until_since(Instant::now(), what, patience, look).await
}

/// The same, where the time began to run before.
///
/// # Errors
/// As of [`until`].
pub(crate) async fn until_since<F: Future<Output = Result<Progress>>>(
    start: Instant,
    what: &'static str,
    patience: Duration,
    mut look: impl FnMut() -> F,
) -> Result<()> {
    let mut told = String::new();
    loop {
        let seen = look().await.unwrap_or_else(|error| Progress { is_done: false, text: error.to_string() });
        if seen.text != told {
            eprintln!("{:>4} s  {}", start.elapsed().as_secs(), seen.text);
            told = seen.text;
        }
        if seen.is_done {
            return Ok(());
        }
        if start.elapsed() >= patience {
            return Err(Error::Timeout { what, waited: patience, seen: told });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
