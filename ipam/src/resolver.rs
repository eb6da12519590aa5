//! resolv.conf(5), as far as a CNI result can tell it.

use weft_cni_spec::Dns;

/// Reads a file's text. Of `domain` the last one counts; what is not known is passed over, as resolvers do.
pub(crate) fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let values = words.map(str::to_owned);
        match keyword {
            "nameserver" => dns.nameservers.extend(values.take(1)),
            "domain" => dns.domain = values.take(1).next().or(dns.domain),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_and_the_rest_is_passed_over() {
        let text = "# comment\n; too\nnameserver 10.96.0.10\nnameserver fd00::a\n\ndomain a.example\n\
                    search svc.cluster.local cluster.local\noptions ndots:5 rotate\nsortlist 1.2.3.4\n";
        let dns = parse(text);
        assert_eq!(dns.nameservers, ["10.96.0.10", "fd00::a"]);
        assert_eq!(dns.domain.as_deref(), Some("a.example"));
        assert_eq!(dns.search, ["svc.cluster.local", "cluster.local"]);
        assert_eq!(dns.options, ["ndots:5", "rotate"]);
        assert!(parse("").is_empty());
    }
}
