//! Readiness probes: parsing them, deciding what a row of results means, and making one.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe as ProbeSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::client::http;
use crate::error::{Error, Result};
use crate::netns;

/// How eagerly a container is asked before it was ready for the first time. The kubelet would wait for its
/// period.
const EAGER: Duration = Duration::from_millis(50);

/// A readiness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// What is tried.
    pub(super) action: Action,
    /// How long after the start to begin.
    pub(super) initial_delay: Duration,
    /// How long to wait between two tries.
    pub(super) period: Duration,
    /// How long one try may take.
    pub(super) timeout: Duration,
    /// How many successes in a row make a container ready.
    pub(super) success_threshold: u32,
    /// How many failures in a row make it unready.
    pub(super) failure_threshold: u32,
}

/// What a probe tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A 2xx answer to a GET, from the pod's namespace to the pod's address.
    HttpGet {
        /// The port.
        port: u16,
        /// The path, with its slash.
        path: String,
    },
    /// A connection that is accepted.
    TcpSocket {
        /// The port.
        port: u16,
    },
    /// A command that ends with 0.
    Exec(Vec<String>),
}

impl Probe {
    /// Reads a probe with Kubernetes' defaults. Ports may be named by the container's own ports.
    pub(super) fn parse(spec: &ProbeSpec, container: &Container) -> std::result::Result<Probe, String> {
        let action = if let Some(get) = &spec.http_get {
            let path = get.path.clone().unwrap_or_else(|| "/".to_owned());
            Action::HttpGet { port: port(&get.port, container)?, path }
        } else if let Some(socket) = &spec.tcp_socket {
            Action::TcpSocket { port: port(&socket.port, container)? }
        } else if let Some(command) = spec.exec.as_ref().and_then(|exec| exec.command.clone()) {
            Action::Exec(command)
        } else {
            return Err(format!(
                "container {}: its probe is none of httpGet, tcpSocket, exec",
                container.name
            ));
        };
        let number = |value: Option<i32>, default: u32, least: u32| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(least)
        };
        let seconds = |value, default, least| Duration::from_secs(number(value, default, least).into());
        Ok(Probe {
            action,
            initial_delay: seconds(spec.initial_delay_seconds, 0, 0),
            period: seconds(spec.period_seconds, 10, 1),
            timeout: seconds(spec.timeout_seconds, 1, 1),
            success_threshold: number(spec.success_threshold, 1, 1),
            failure_threshold: number(spec.failure_threshold, 3, 1),
        })
    }
}

fn port(port: &IntOrString, container: &Container) -> std::result::Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port),
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| {
        format!("container {}: its probe names port {port:?}, which it has not", container.name)
    })
}

/// Turns a row of results into readiness.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judge {
    successes: u32,
    failures: u32,
    ready: bool,
    was_ready: bool,
}

impl Judge {
    /// Takes one result and tells whether the container is ready now.
    pub(super) fn judge(&mut self, probe: &Probe, success: bool) -> bool {
        if success {
            (self.successes, self.failures) = (self.successes + 1, 0);
            self.ready |= self.successes >= probe.success_threshold;
        } else {
            (self.successes, self.failures) = (0, self.failures + 1);
            self.ready &= self.failures < probe.failure_threshold;
        }
        self.was_ready |= self.ready;
        self.ready
    }

    /// How long to wait for the next try.
    pub(super) fn wait(&self, probe: &Probe) -> Duration {
        if self.was_ready { probe.period } else { EAGER.min(probe.period) }
    }
}

/// Tries an httpGet or tcpSocket action from inside a namespace.
pub(super) async fn reach(
    namespace: String,
    address: IpAddr,
    action: Action,
    timeout: Duration,
) -> Result<()> {
    let work = move || {
        netns::run(&namespace, move || match action {
            Action::HttpGet { port, path } => {
                let address = SocketAddr::new(address, port);
                http::get(address, &address.to_string(), &path, timeout)
                    .map(drop)
                    .map_err(|reason| Error::Probe { what: format!("GET http://{address}{path}"), reason })
            }
            Action::TcpSocket { port } => {
                let address = SocketAddr::new(address, port);
                TcpStream::connect_timeout(&address, timeout).map(drop).map_err(|error| Error::Probe {
                    what: format!("connect to {address}"),
                    reason: error.to_string(),
                })
            }
            Action::Exec(_) => Ok(()),
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Probe { what: "probe".to_owned(), reason: error.to_string() }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(probe: Value) -> std::result::Result<Probe, String> {
        let container: Container = serde_json::from_value(json!({
            "name": "c", "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": probe
        }))
        .unwrap();
        Probe::parse(container.readiness_probe.as_ref().unwrap(), &container)
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let probe = parse(json!({"httpGet": {"port": "http"}})).unwrap();
        assert_eq!(probe.action, Action::HttpGet { port: 8080, path: "/".to_owned() });
        assert_eq!((probe.period.as_secs(), probe.timeout.as_secs(), probe.failure_threshold), (10, 1, 3));
    }

    #[test]
    fn a_probe_that_cannot_be_made_is_refused() {
        for bad in [json!({}), json!({"tcpSocket": {"port": "grpc"}}), json!({"httpGet": {"port": 70000}})] {
            assert!(parse(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let probe = parse(json!({"tcpSocket": {"port": 1}, "successThreshold": 2})).unwrap();
        let mut judge = Judge::default();
        let row = [true, false, true, true, false, false, true, false, false, false, true];
        let ready: Vec<bool> = row.iter().map(|&success| judge.judge(&probe, success)).collect();
        let expected = [false, false, false, true, true, true, true, true, true, false, false];
        assert_eq!(ready, expected);
    }

    #[test]
    fn a_container_is_asked_eagerly_until_it_was_ready_once() {
        let probe = parse(json!({"tcpSocket": {"port": 1}})).unwrap();
        let mut judge = Judge::default();
        assert_eq!(judge.wait(&probe), EAGER);
        judge.judge(&probe, true);
        assert_eq!(judge.wait(&probe), probe.period);
    }
}
