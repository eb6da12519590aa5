//! What every process tells of itself to Prometheus, under the names that its client libraries have:
//! `process_*`. It is read from `/proc`; what cannot be read is left out.

use std::fmt::Write;
use std::fs;

/// In what the kernel counts a process's time: `USER_HZ`, the same on every machine.
const TICKS_A_SECOND: f64 = 100.0;
/// The end of OpenMetrics text.
const END: &str = "# EOF\n";

/// What is known of a process.
#[derive(Debug, Default, PartialEq)]
struct Process {
    cpu_seconds: Option<f64>,
    start_time_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    open_files: Option<f64>,
    most_files: Option<f64>,
}

/// OpenMetrics text with the figures of this process.
pub(crate) fn with_process(text: String) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut process = Process::read(
        &read("/proc/self/stat"),
        &read("/proc/stat"),
        &read("/proc/self/status"),
        &read("/proc/self/limits"),
    );
    // The folder itself is open while it is read.
    process.open_files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64 - 1.0);
    let body = text.strip_suffix(END).unwrap_or(&text);
    format!("{body}{}{END}", process.text())
}

impl Process {
    /// From `/proc/self/stat`, `/proc/stat`, `/proc/self/status` and `/proc/self/limits` (proc(5)).
    fn read(own: &str, machine: &str, status: &str, limits: &str) -> Process {
        // The program's name, in brackets, may hold anything: the state is number 3, and stands behind it.
        let fields: Vec<&str> = own.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let number = |text: &str, name: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let booted = number(machine, "btime");
        let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        Process {
            cpu_seconds: sum(ticks(14), ticks(15)).map(|ticks| ticks / TICKS_A_SECOND),
            start_time_seconds: sum(booted, ticks(22).map(|ticks| ticks / TICKS_A_SECOND)),
            resident_bytes: number(status, "VmRSS:").map(|kilobytes| kilobytes * 1024.0),
            virtual_bytes: number(status, "VmSize:").map(|kilobytes| kilobytes * 1024.0),
            open_files: None,
            most_files: number(limits, "Max open files"),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, kind, suffix, help, value) in [
            ("cpu_seconds", "counter", "_total", "User and system time.", self.cpu_seconds),
            ("start_time_seconds", "gauge", "", "When it was started, since 1970.", self.start_time_seconds),
            ("resident_memory_bytes", "gauge", "", "Memory that it holds.", self.resident_bytes),
            ("virtual_memory_bytes", "gauge", "", "Addresses that it has.", self.virtual_bytes),
            ("open_fds", "gauge", "", "Open files.", self.open_files),
            ("max_fds", "gauge", "", "How many files may be open.", self.most_files),
        ] {
            let Some(value) = value else { continue };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name}{suffix} {value}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_figures_are_told_in_seconds_and_bytes() {
        let own = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12345 1000 200 18446744073709551615";
        let process = Process::read(
            own,
            "cpu 1 2 3\nbtime 1700000000\n",
            "Name:\ta\nVmSize:\t  2000 kB\nVmRSS:\t   100 kB\n",
            "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 4096         files\n",
        );
        let expected = Process {
            cpu_seconds: Some(3.0),
            start_time_seconds: Some(1_700_000_123.45),
            resident_bytes: Some(102_400.0),
            virtual_bytes: Some(2_048_000.0),
            open_files: None,
            most_files: Some(1024.0),
        };
        assert_eq!(process, expected);
        let text = process.text();
        assert!(text.contains("# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 3\n"), "{text}");
        assert!(!text.contains("open_fds"), "{text}");
        assert_eq!(Process::read("", "", "", ""), Process::default());
    }

    #[test]
    fn this_process_has_all_of_them_before_the_end() {
        let text = with_process("# TYPE a gauge\na 1\n# EOF\n".to_owned());
        assert!(text.starts_with("# TYPE a gauge\na 1\n# HELP") && text.ends_with("\n# EOF\n"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        assert_eq!(text.matches("# TYPE process_").count(), 6, "{text}");
    }
}
