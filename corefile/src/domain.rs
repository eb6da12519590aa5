//! Domain names, and the reverse zones of networks.

use std::fmt;

use ipnetwork::IpNetwork;

/// A domain in lower case with its last dot; `.` is the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

impl Domain {
    /// The root, which covers all.
    pub fn root() -> Domain {
        Domain(".".to_owned())
    }

    /// Reads a name, with or without its last dot.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(text: &str) -> Result<Domain, String> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if text == "." {
            return Ok(Domain::root());
        }
        if name.contains(['\\', '"']) || name.contains(char::is_whitespace) {
            return Err(format!("{text:?} is no domain name here: escaped letters are not supported"));
        }
        let is_label = |label: &str| (1..=63).contains(&label.len());
        match name.len() <= 253 && name.split('.').all(is_label) {
            true => Ok(Domain(name.to_ascii_lowercase() + ".")),
            false => Err(format!("{text:?} is no domain name (labels of 1 to 63 bytes, 253 bytes in all)")),
        }
    }

    /// Reads a name, or the reverse zones of a network such as `10.0.0.0/17`.
    ///
    /// # Errors
    /// Why it is neither.
    pub fn expand(text: &str) -> Result<Vec<Domain>, String> {
        match (text.contains('/'), text.parse::<IpNetwork>()) {
            (true, Ok(network)) => Ok(reverse_zones(&network)),
            (true, Err(_)) => Err(format!("{text:?} is no network, such as 10.0.0.0/16, and no domain name")),
            (false, _) => Domain::new(text).map(|domain| vec![domain]),
        }
    }

    /// With its last dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a domain is this one or below it.
    pub fn covers(&self, other: &Domain) -> bool {
        let before = other.0.strip_suffix(self.0.as_str());
        self.0 == "." || before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    }

    /// Whether it is of names that addresses have.
    pub fn is_reverse(&self) -> bool {
        ["in-addr.arpa.", "ip6.arpa."].iter().any(|zone| Domain((*zone).to_owned()).covers(self))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The zones of whole octets, or of hexadecimal digits, that a network is made of.
fn reverse_zones(network: &IpNetwork) -> Vec<Domain> {
    let (digits, per_digit, suffix): (Vec<u8>, usize, &str) = match network {
        IpNetwork::V4(network) => (network.network().octets().to_vec(), 8, "in-addr.arpa."),
        IpNetwork::V6(network) => (
            network.network().octets().iter().flat_map(|octet| [octet >> 4, octet & 15]).collect(),
            4,
            "ip6.arpa.",
        ),
    };
    let prefix = usize::from(network.prefix());
    let whole = prefix.div_ceil(per_digit);
    let varies = whole * per_digit - prefix;
    (0..1_u16 << varies)
        .map(|number| {
            let mut own = digits[..whole].to_vec();
            if let (Some(last), Ok(number)) = (own.last_mut(), u8::try_from(number)) {
                *last |= number;
            }
            let labels = own.iter().rev().map(|digit| match per_digit {
                8 => format!("{digit}."),
                _ => format!("{digit:x}."),
            });
            Domain(labels.collect::<String>() + suffix)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Vec<String> {
        Domain::expand(text).unwrap().iter().map(Domain::to_string).collect()
    }

    #[test]
    fn names_are_lower_case_and_end_with_a_dot() {
        assert_eq!(expand("Example.ORG"), ["example.org."]);
        assert_eq!(expand("."), ["."]);
        for text in
            ["", "a..b", "..", ".a", "a\\.b", "a b", &"a".repeat(64), &"a.".repeat(128), "10.0.0.0/33", "a/b"]
        {
            assert!(Domain::expand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_domain_covers_what_is_below_it() {
        let covers = |one, other| Domain::new(one).unwrap().covers(&Domain::new(other).unwrap());
        assert!(
            covers(".", "a")
                && covers("a", "a")
                && covers("a", "b.a")
                && !covers("a", "ba")
                && !covers("b.a", "a")
        );
    }

    #[test]
    fn networks_are_zones_of_whole_labels() {
        assert_eq!(expand("10.96.0.0/16"), ["96.10.in-addr.arpa."]);
        assert_eq!(expand("10.96.7.0/16"), ["96.10.in-addr.arpa."]);
        assert_eq!(expand("10.0.0.0/7"), ["10.in-addr.arpa.", "11.in-addr.arpa."]);
        assert_eq!(expand("10.1.128.0/17").len(), 128);
        assert_eq!(expand("10.1.128.0/17")[127], "255.1.10.in-addr.arpa.");
        assert_eq!(expand("fd00::/8"), ["d.f.ip6.arpa."]);
        assert_eq!(expand("2001:db8::/31"), ["8.b.d.0.1.0.0.2.ip6.arpa.", "9.b.d.0.1.0.0.2.ip6.arpa."]);
        assert_eq!(expand("0.0.0.0/0"), ["in-addr.arpa."]);
    }
}
