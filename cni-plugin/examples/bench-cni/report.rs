//! The figures as tables, and what is asked of them. Nothing is measured here.

use std::time::Duration;

use crate::cost::{Calls, Usage};

/// Of one contender, for ADD or for DEL.
pub(crate) struct Figures {
    /// Sorted.
    times: Vec<Duration>,
    usage: Vec<Usage>,
    calls: Calls,
}

impl Figures {
    pub(crate) fn new(mut times: Vec<Duration>, usage: Vec<Usage>, calls: Calls) -> Figures {
        times.sort();
        Figures { times, usage, calls }
    }

    /// The time that so many of a hundred calls take at most, in milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        millis(self.times[(self.times.len() * percent / 100).min(self.times.len() - 1)])
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// In milliseconds.
    fn processor(&self) -> f64 {
        let mut times: Vec<Duration> = self.usage.iter().map(|usage| usage.processor).collect();
        times.sort();
        millis(times[times.len() / 2])
    }

    /// In MB, the peak of all calls.
    pub(crate) fn resident(&self) -> f64 {
        megabytes(self.usage.iter().map(|usage| usage.resident).max().unwrap_or_default())
    }
}

/// A contender's row: ADD and DEL.
pub(crate) type Row = (&'static str, [Figures; 2]);

pub(crate) fn print_times(rounds: usize, rows: &[Row]) {
    println!("{rounds} rounds, wall time from start to end of the program, in ms\n");
    println!("| | ADD: median | 90 % | x bare | DEL: median | 90 % | x bare |");
    println!("|---|---|---|---|---|---|---|");
    for (name, both) in rows {
        let cells = [0, 1].map(|command| {
            let (figures, bare) = (&both[command], &rows[0].1[command]);
            let (median, most) = (figures.median(), figures.percentile(90));
            format!("{median:.2} | {most:.2} | {:.2}", median / bare.median())
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
}

pub(crate) fn print_costs(rows: &[Row]) {
    println!("Processor time in ms, largest resident memory in MB, system calls, and programs\n");
    println!("| | ADD: CPU | memory | calls | programs | DEL: CPU | memory | calls | programs |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, both) in rows {
        let cells = both.each_ref().map(|figures| {
            let Calls { system_calls, programs } = figures.calls;
            let (processor, resident) = (figures.processor(), figures.resident());
            format!("{processor:.2} | {resident:.2} | {system_calls} | {programs}")
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
}

pub(crate) fn print_parallel(pods: usize, rows: &[(&'static str, [Duration; 2])]) {
    println!(
        "{pods} at once, wall time until the last has ended, in ms; every pod has an address of its own\n"
    );
    println!("| | ADD | per second | DEL | per second |");
    println!("|---|---|---|---|---|");
    for (name, both) in rows {
        let cells = both.map(|time| format!("{:.0} | {:.0}", millis(time), pods as f64 / time.as_secs_f64()));
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
}

/// Prints the medians of ADD and DEL; returns those of ADD, in milliseconds.
pub(crate) fn print_crowded(pods: usize, rows: Vec<(&'static str, [Vec<Duration>; 2])>) -> Vec<f64> {
    println!("The {pods}th pod of a node: medians in ms\n");
    println!("| | ADD | x bare | DEL |");
    println!("|---|---|---|---|");
    let mut adds: Vec<f64> = Vec::new();
    for (name, both) in rows {
        let [add, del] = both.map(|mut times| {
            times.sort();
            millis(times[times.len() / 2])
        });
        adds.push(add);
        println!("| {name} | {add:.2} | {:.2} | {del:.2} |", add / adds[0]);
    }
    println!();
    adds
}

/// Something that is asked of the plugin: at most, or at least.
pub(crate) struct Bar {
    pub(crate) what: &'static str,
    pub(crate) limit: Limit,
    pub(crate) seen: f64,
}

#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

pub(crate) fn print_bars(bars: &[Bar]) {
    println!("| | bar | seen | |");
    println!("|---|---|---|---|");
    for Bar { what, limit, seen } in bars {
        let (sign, number, met) = match limit {
            Limit::AtMost(limit) => ("<=", limit, seen <= limit),
            Limit::AtLeast(limit) => (">=", limit, seen >= limit),
        };
        println!("| {what} | {sign} {number} | {seen:.2} | {} |", if met { "met" } else { "missed" });
    }
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
