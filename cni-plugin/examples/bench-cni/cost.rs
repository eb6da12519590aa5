//! What a call costs the machine: processor time, memory, system calls and programs. How long it takes is
//! measured elsewhere, for all this slows it down.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::wait;

/// What a program and all that it starts use.
pub(crate) struct Usage {
    /// In user and kernel mode.
    pub(crate) processor: Duration,
    /// The peak of the largest of them, in bytes.
    pub(crate) resident: u64,
}

/// How often a program and all that it starts ask the kernel.
pub(crate) struct Calls {
    pub(crate) system_calls: usize,
    /// Programs that were started, its own included.
    pub(crate) programs: usize,
}

/// Runs a program and prints what it used. For a process of its own: what the kernel tells counts all
/// children of one, and starts with the memory of who starts them.
pub(crate) fn watch(program: &str, arguments: &[&str]) {
    // What a program leaves running counts too.
    set_child_subreaper(true).unwrap();
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} failed: {status}");
    while wait().is_ok() {}
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    let micros: i64 = times.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum();
    println!("{micros} {}", usage.max_rss());
}

impl Usage {
    /// Reads what [`watch`] prints: microseconds, KiB.
    pub(crate) fn parse(text: &str) -> Usage {
        let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
        Usage { processor: Duration::from_micros(numbers[0]), resident: numbers[1] * 1024 }
    }
}

impl Calls {
    /// The arguments with which strace writes what [`Calls::parse`] reads.
    pub(crate) const STRACE: [&str; 6] = ["strace", "-c", "-f", "-U", "name,calls,errors", "-o"];

    /// A line for each system call: its name, how often, and how often in vain.
    pub(crate) fn parse(text: &str) -> Calls {
        let row = |wanted: &str| {
            let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let row = rows.into_iter().find(|words| words.first() == Some(&wanted)).unwrap();
            let number = |place: usize| row.get(place).map_or(0, |word| word.parse::<usize>().unwrap());
            (number(1), number(2))
        };
        let (execs, failed) = row("execve");
        Calls { system_calls: row("total").0, programs: execs - failed }
    }
}
