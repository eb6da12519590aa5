//! What a pod gets for a name, by the explanation of the cluster's DNS server.

use std::net::IpAddr;

use super::cause::Finding;
use super::error::Error;
use super::question::Party;
use super::report::{Outcome, Path};
use super::world::Site;
use crate::cluster::Connection;
use crate::dns;

/// What a pod gets for a name; or the answer to the question, where it gets nothing.
pub(super) async fn resolve(
    connection: &Connection,
    from: &Party,
    name: &str,
) -> Result<Result<(Site, String), Box<Path>>, Error> {
    let Party::Pod(pod) = from else {
        let problem = format!("{name} is a name, and only a pod resolves it as pods do: name a pod as FROM");
        return Err(Error::Question(problem));
    };
    let (mut addresses, mut tried, mut walk) = (Vec::new(), None, String::new());
    for record_type in ["A", "AAAA"] {
        let asked = dns::Explain {
            from: dns::From::of_pod(pod),
            name: name.to_owned(),
            record_type: record_type.to_owned(),
            connection: connection.clone(),
            server: None,
        };
        walk = dns::explain(&asked).await?;
        let (full, found) = answers(&walk);
        tried = tried.or(full.filter(|_| !found.is_empty()));
        addresses.extend(found);
    }
    let Some(tried) = tried else {
        let outcome =
            if walk.contains("The pod gets no answer.") { Outcome::DoesNotArrive } else { Outcome::Unknown };
        let fix = format!("weft dns explain {pod} {name}");
        return Ok(Err(Box::new(Path {
            finding: Some(Finding::new(
                format!("the name {name} does not resolve in Pod {pod}{}", reason(&walk)),
                fix,
            )),
            notes: walk.lines().map(str::to_owned).collect(),
            ..Path::new(outcome, from.to_string(), name.to_owned(), "by its name".to_owned())
        })));
    };
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let resolved = format!("{name} is {tried}: {}", shown.join(", "));
    Ok(Ok((Site { name: name.to_owned(), addresses, ..Site::default() }, resolved)))
}

/// Why there is no answer, where the server says so below a name: of one that it failed for, else of the first.
fn reason(walk: &str) -> String {
    let lines: Vec<&str> = walk.lines().collect();
    let reasons = lines.windows(2).filter(|pair| pair[1].starts_with("     "));
    let (failed, others): (Vec<_>, Vec<_>) = reasons.partition(|pair| pair[0].ends_with("SERVFAIL"));
    let told = failed.first().or(others.first());
    told.map(|pair| format!(": {}", pair[1].trim())).unwrap_or_default()
}

/// The name that was answered for, and the addresses, by the DNS server's explanation.
fn answers(walk: &str) -> (Option<String>, Vec<IpAddr>) {
    let (mut name, mut found) = (None, Vec::new());
    for line in walk.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [number, tried, _]
                if number.ends_with('.') && number[..number.len() - 1].parse::<u8>().is_ok() =>
            {
                name = Some(tried.to_owned());
                found.clear();
            }
            [_, _, "IN", "A" | "AAAA", address] => found.extend(address.parse::<IpAddr>().ok()),
            _ => {}
        }
    }
    (name, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_that_of_a_failure_else_of_the_first_name() {
        let missing = "1. a.shop.svc.cluster.local. NXDOMAIN\n     no such service in the namespace\n\
                       2. a.svc.cluster.local. NXDOMAIN\n     no such namespace\n";
        assert_eq!(reason(missing), ": no such service in the namespace");
        let failed = format!("{missing}3. a. SERVFAIL\n     upstream 192.0.2.1:53 did not answer in time\n");
        assert_eq!(reason(&failed), ": upstream 192.0.2.1:53 did not answer in time");
        assert_eq!(reason("1. a. NXDOMAIN\n"), "");
    }
}
