//! What was measured, as a table for people and for the documentation.

use std::time::Duration;

/// Results, each with what is asked of it.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    seen: String,
    bar: String,
    met: Option<bool>,
}

impl Table {
    /// A result that has to be at most `bar`.
    pub fn at_most(&mut self, what: impl Into<String>, seen: f64, bar: f64, unit: &str) {
        self.row(what, number(seen, unit), format!("<= {bar} {unit}"), Some(seen <= bar));
    }

    /// A result that has to be at least `bar`.
    pub fn at_least(&mut self, what: impl Into<String>, seen: f64, bar: f64, unit: &str) {
        self.row(what, number(seen, unit), format!(">= {bar} {unit}"), Some(seen >= bar));
    }

    /// A result without a bar.
    pub fn note(&mut self, what: impl Into<String>, seen: impl Into<String>) {
        self.row(what, seen.into(), String::new(), None);
    }

    fn row(&mut self, what: impl Into<String>, seen: String, bar: String, met: Option<bool>) {
        let row = Row { what: what.into(), seen, bar: bar.trim_end().to_owned(), met };
        eprintln!("{}: {}", row.what, row.seen);
        self.rows.push(row);
    }

    /// Prints all of it.
    pub fn print(&self) {
        println!("| | seen | bar | |");
        println!("|---|---|---|---|");
        for Row { what, seen, bar, met } in &self.rows {
            let met = met.map_or("", |met| if met { "met" } else { "**missed**" });
            println!("| {what} | {seen} | {bar} | {met} |");
        }
    }
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// With three digits.
pub fn number(value: f64, unit: &str) -> String {
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

/// `10,000`
pub fn thousands(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}

/// The value below which that share of the values lies. Sorts them.
pub fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share).round() as usize]
}

/// The middle one. Sorts them.
pub fn median(times: &mut [Duration]) -> Duration {
    quantile(times, 0.5)
}
