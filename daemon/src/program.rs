//! How a daemon's program runs and ends.

use std::fmt::Display;
use std::process::ExitCode;

use crate::Error;

/// Says on stderr what ended the program `name`, where it failed. Each error tells its cause itself.
pub fn exit_code<E: Display>(name: &str, result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `daemon` to its end, with the one thread that does everything a daemon awaits.
///
/// # Errors
/// Where the runtime cannot be had.
pub fn block_on<F: Future>(daemon: F) -> Result<F::Output, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Error::Runtime)?.block_on(daemon))
}

/// The same with a thread for each core, for what one core may be too little for.
///
/// # Errors
/// Where the runtime cannot be had.
pub fn block_on_all_cores<F: Future>(daemon: F) -> Result<F::Output, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(Error::Runtime)?.block_on(daemon))
}
