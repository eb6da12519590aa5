//! What keeps part of a Service from being served, as values: the planner finds them, others turn them into
//! log lines and events. One Service's problem is never another one's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use weft_types::NamespacedName;

use super::plan::Frontend;

/// How many problems of a Service are told in full.
const TOLD: usize = 4;

/// What keeps part of a Service from being served. Prints as one line, without the Service's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Another Service, which is older or whose own address it is, answers there.
    Taken {
        /// What both ask for.
        frontend: Frontend,
        /// Who has it.
        owner: NamespacedName,
    },
    /// The same, by another Service that is asked for its health there.
    TakenForHealthChecks {
        /// What both ask for.
        frontend: Frontend,
        /// Who has it.
        owner: NamespacedName,
    },
    /// Another Service answers where the Service is to be asked for its health, or the Service itself as a
    /// NodePort.
    HealthCheckPortTaken {
        /// The Service's `healthCheckNodePort`.
        port: u16,
        /// Who has it.
        owner: NamespacedName,
    },
    /// A container of this node is not reached at its `hostPort`, since the Service answers there.
    HidesHostPort {
        /// What both ask for.
        frontend: Frontend,
        /// Where the container would be reached.
        container: SocketAddr,
    },
    /// A container of this node answers by its `hostPort` where the Service is to be asked for its health.
    HiddenByHostPort {
        /// What both ask for.
        frontend: Frontend,
        /// The container.
        container: SocketAddr,
    },
    /// Another port of the Service answers there.
    Repeated(Frontend),
    /// An address that no Service may have: loopback, link-local, unspecified or multicast.
    ForbiddenAddress(IpAddr),
    /// Endpoints at addresses that no Service may lead to: loopback, link-local, unspecified or multicast.
    ForbiddenEndpoints {
        /// The EndpointSlice's own name.
        slice: String,
        /// The first of these addresses.
        first: IpAddr,
        /// How many there are.
        count: usize,
    },
    /// More ports and endpoints than one Service may have.
    TooLarge {
        /// How many ports are not served for that.
        ports: usize,
    },
}

impl Problem {
    /// The reason of an event about it, in the API's way of writing.
    pub fn reason(&self) -> &'static str {
        match self {
            Problem::Taken { .. } | Problem::TakenForHealthChecks { .. } => "FrontendTaken",
            Problem::HealthCheckPortTaken { .. } | Problem::HiddenByHostPort { .. } => "HealthCheckPortTaken",
            Problem::HidesHostPort { .. } => "HostPortTaken",
            Problem::Repeated(_) => "PortRepeated",
            Problem::ForbiddenAddress(_) => "ForbiddenAddress",
            Problem::ForbiddenEndpoints { .. } => "ForbiddenEndpoints",
            Problem::TooLarge { .. } => "ServiceTooLarge",
        }
    }
}

/// All that is wrong with one Service, in one line that says so much of it as people read.
pub fn summary(problems: &[Problem]) -> String {
    let told: Vec<String> = problems.iter().take(TOLD).map(ToString::to_string).collect();
    match problems.len().saturating_sub(TOLD) {
        0 => told.join("; "),
        more => format!("{}; and {more} more problems", told.join("; ")),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Taken { frontend, owner } => {
                write!(f, "{frontend} is not served for this Service: Service {owner} has it")
            }
            Problem::TakenForHealthChecks { frontend, owner } => write!(
                f,
                "{frontend} is not served for this Service: Service {owner} has it as its healthCheckNodePort"
            ),
            Problem::HealthCheckPortTaken { port, owner } => write!(
                f,
                "health checks at healthCheckNodePort {port} are not answered: Service {owner} has that port"
            ),
            Problem::HidesHostPort { frontend, container } => write!(
                f,
                "{frontend} is also a hostPort of the container at {container}: connections go to this Service"
            ),
            Problem::HiddenByHostPort { frontend, container } => write!(
                f,
                "health checks at {frontend} go to the container at {container}, which has it as its hostPort"
            ),
            Problem::Repeated(frontend) => {
                write!(f, "{frontend} is used by two ports of this Service: only the first one is served")
            }
            Problem::ForbiddenAddress(address) => {
                write!(
                    f,
                    "{address} is not served: Services may not have loopback, link-local, unspecified or multicast addresses"
                )
            }
            Problem::ForbiddenEndpoints { slice, first, count } => write!(
                f,
                "{count} endpoint(s) of EndpointSlice {slice} get no connections, {first} among them: Services may not lead to \
                 loopback, link-local, unspecified or multicast addresses"
            ),
            Problem::TooLarge { ports } => write!(
                f,
                "{ports} port(s) are not served: the Service has too many ports and endpoints; split it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_with_many_problems_is_told_of_in_one_line_that_ends() {
        let problem = |last| Problem::ForbiddenAddress([127, 0, 0, last].into());
        let problems: Vec<_> = (1..=200).map(problem).collect();
        assert_eq!(
            summary(&problems[..1]),
            "127.0.0.1 is not served: Services may not have loopback, link-local, unspecified or multicast addresses"
        );
        let line = summary(&problems);
        assert!(line.ends_with("; and 196 more problems") && line.contains("127.0.0.4 is"), "{line}");
    }
}
