//! What was measured, as tables for people and for the documentation.

use std::time::Duration;

/// All results of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The full loads, of Weft and its peers.
    pub(crate) loads: Vec<Load>,
    rows: Vec<Row>,
}

/// One full load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// What was loaded, by what.
    pub(crate) contender: &'static str,
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
    pub(crate) outcome: Outcome,
}

/// How a load ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// Well, in that time.
    Took(Duration),
    /// It was stopped after that time.
    Stopped(Duration),
    /// It was not begun, since a smaller one had taken long.
    NotTried,
    /// The machine's kernel cannot do it.
    Impossible,
}

#[derive(Debug)]
struct Row {
    what: String,
    seen: String,
    bar: String,
    met: Option<bool>,
}

impl Report {
    /// A result that has to be at most `bar`.
    pub(crate) fn at_most(&mut self, what: impl Into<String>, seen: f64, bar: f64, unit: &str) {
        self.row(what, number(seen, unit), format!("<= {bar} {unit}"), Some(seen <= bar));
    }

    /// A result that has to be at least `bar`.
    pub(crate) fn at_least(&mut self, what: impl Into<String>, seen: f64, bar: f64, unit: &str) {
        self.row(what, number(seen, unit), format!(">= {bar} {unit}"), Some(seen >= bar));
    }

    /// A result without a bar.
    pub(crate) fn note(&mut self, what: impl Into<String>, seen: impl Into<String>) {
        self.row(what, seen.into(), String::new(), None);
    }

    fn row(&mut self, what: impl Into<String>, seen: String, bar: String, met: Option<bool>) {
        let row = Row { what: what.into(), seen, bar: bar.trim_end().to_owned(), met };
        eprintln!("{}: {}", row.what, row.seen);
        self.rows.push(row);
    }

    pub(crate) fn print(&self) {
        if !self.loads.is_empty() {
            self.print_loads();
        }
        println!("| | seen | bar | |");
        println!("|---|---|---|---|");
        for Row { what, seen, bar, met } in &self.rows {
            let met = met.map_or("", |met| if met { "met" } else { "**missed**" });
            println!("| {what} | {seen} | {bar} | {met} |");
        }
    }

    /// A line for each size, a column for each contender.
    fn print_loads(&self) {
        let mut contenders: Vec<&str> = Vec::new();
        let mut sizes: Vec<(usize, usize)> = Vec::new();
        for load in &self.loads {
            if !contenders.contains(&load.contender) {
                contenders.push(load.contender);
            }
            if !sizes.contains(&(load.endpoints, load.services)) {
                sizes.push((load.endpoints, load.services));
            }
        }
        sizes.sort_unstable();
        println!("From an empty kernel to all rules in, Services x endpoints\n");
        println!("| | {} |", contenders.join(" | "));
        println!("|---|{}", "---|".repeat(contenders.len()));
        for (endpoints, services) in sizes {
            let cells = contenders.iter().map(|contender| self.cell(contender, services, endpoints));
            println!("| {} x {endpoints} | {} |", thousands(services), cells.collect::<Vec<_>>().join(" | "));
        }
        println!();
    }

    fn cell(&self, contender: &str, services: usize, endpoints: usize) -> String {
        let is_it = |load: &&Load| {
            (load.contender, load.services, load.endpoints) == (contender, services, endpoints)
        };
        match self.loads.iter().find(is_it).map(|load| load.outcome) {
            Some(Outcome::Took(time)) => self::time(time),
            Some(Outcome::Stopped(limit)) => format!("stopped after {} s", limit.as_secs()),
            Some(Outcome::NotTried) => "too long to try".to_owned(),
            Some(Outcome::Impossible) => "not in this kernel".to_owned(),
            None => String::new(),
        }
    }
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) { number(ms(time), "ms") } else { number(time.as_secs_f64(), "s") }
}

fn number(value: f64, unit: &str) -> String {
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

/// `10,000`
pub(crate) fn thousands(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}

/// The value below which that share of the values lies. Sorts them.
pub(crate) fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share).round() as usize]
}

/// The middle one. Sorts them.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    quantile(times, 0.5)
}
