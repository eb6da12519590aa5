//! In which order addresses were freed: the text of the file `freed`, an address on each line, the last freed
//! last.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// So many addresses are remembered; an address that was freed before that many others rested long enough.
const REMEMBERED: usize = 512;
/// A text of this length, in bytes, is written anew without what does not count any more. Every ADD reads it.
const LONG: u64 = 16 << 10;

/// Whether a text of that length is to be written anew.
pub(crate) fn is_long(length: u64) -> bool {
    length > LONG
}

/// The addresses, the one that rests longest first. What a crash or a full disk left of a line is passed
/// over.
pub(crate) fn parse(text: &str) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    let latest =
        text.lines().rev().filter_map(|line| line.parse().ok()).filter(|address| seen.insert(*address));
    let mut freed: Vec<IpAddr> = latest.take(REMEMBERED).collect();
    freed.reverse();
    freed
}

/// The text of these addresses.
pub(crate) fn text(freed: &[IpAddr]) -> String {
    freed.iter().map(|address| format!("{address}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_last_time_counts_and_torn_lines_do_not() {
        let freed = parse("10.1.0.2\n10.1.0.3\n10.1.0.10.1.0.9\nfd00::2\n10.1.0.2\n\n");
        assert_eq!(text(&freed), "10.1.0.3\nfd00::2\n10.1.0.2\n");
    }

    #[test]
    fn old_ones_are_forgotten_so_that_the_text_stays_short() {
        let all: Vec<IpAddr> = (0..2000).map(|number| Ipv4Addr::from(number).into()).collect();
        let kept = parse(&text(&all));
        assert_eq!(kept, all[2000 - REMEMBERED..]);
        assert!(is_long(text(&all).len() as u64) && !is_long(text(&kept).len() as u64));
    }
}
