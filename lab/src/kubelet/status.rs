//! A pod's status, composed from what its containers report. Pure: the time is given.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The container's name.
    pub(super) name: String,
    /// Its image.
    pub(super) image: String,
    /// What it does now.
    pub(super) state: State,
    /// How it ended the last time before.
    pub(super) last_end: Option<End>,
    /// How often it was started again.
    pub(super) restarts: i32,
    /// Whether it takes requests.
    pub(super) ready: bool,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It does not run, or not yet.
    Waiting {
        /// In one word, as kubectl shows it.
        reason: &'static str,
        /// In full.
        message: String,
    },
    /// It runs.
    Running {
        /// Since then.
        since: Timestamp,
    },
    /// It ended for good.
    Ended(End),
}

/// How a container's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The exit code; 128 and the signal's number where a signal ended it.
    pub(super) code: i32,
    /// When it had started.
    pub(super) started: Timestamp,
    /// When it ended.
    pub(super) ended: Timestamp,
}

impl Report {
    /// A container that was not started yet.
    pub(super) fn waiting(name: &str, image: &str, reason: &'static str, message: String) -> Report {
        let state = State::Waiting { reason, message };
        Report {
            name: name.to_owned(),
            image: image.to_owned(),
            state,
            last_end: None,
            restarts: 0,
            ready: false,
        }
    }

    fn status(&self) -> ContainerStatus {
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: self.image.clone(),
            ready: self.ready,
            restart_count: self.restarts,
            started: Some(matches!(self.state, State::Running { .. })),
            state: Some(self.state.as_api()),
            last_state: self.last_end.as_ref().map(End::as_api),
            ..ContainerStatus::default()
        }
    }
}

impl State {
    fn as_api(&self) -> ContainerState {
        match self {
            State::Waiting { reason, message } => ContainerState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some((*reason).to_owned()),
                    message: Some(message.clone()).filter(|message| !message.is_empty()),
                }),
                ..ContainerState::default()
            },
            State::Running { since } => ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
                ..ContainerState::default()
            },
            State::Ended(end) => end.as_api(),
        }
    }
}

impl End {
    fn as_api(&self) -> ContainerState {
        let reason = if self.code == 0 { "Completed" } else { "Error" };
        ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: self.code,
                reason: Some(reason.to_owned()),
                started_at: Some(Time(self.started)),
                finished_at: Some(Time(self.ended)),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        }
    }
}

/// The status of a pod.
pub(super) fn pod_status(
    reports: &[Report],
    addresses: &[IpAddr],
    node_addresses: &[IpAddr],
    before: &PodStatus,
    now: Timestamp,
) -> PodStatus {
    let phase = phase(reports);
    let ready = !reports.is_empty() && reports.iter().all(|report| report.ready);
    let conditions = [
        ("PodReadyToStartContainers", !addresses.is_empty()),
        ("Initialized", true),
        ("Ready", ready),
        ("ContainersReady", ready),
        ("PodScheduled", true),
    ];
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions.map(|(kind, holds)| condition(kind, holds, before, now)).to_vec()),
        container_statuses: Some(reports.iter().map(Report::status).collect()),
        host_ip: node_addresses.first().map(IpAddr::to_string),
        host_ips: Some(node_addresses.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: addresses.first().map(IpAddr::to_string),
        pod_ips: Some(addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect())
            .filter(|ips: &Vec<PodIP>| !ips.is_empty()),
        qos_class: Some("BestEffort".to_owned()),
        start_time: before.start_time.clone().or(Some(Time(now))),
        ..PodStatus::default()
    }
}

/// Pending until every container was started once; ended when all ended.
fn phase(reports: &[Report]) -> &'static str {
    let ended = |report: &Report| match &report.state {
        State::Ended(end) => Some(end.code),
        _ => None,
    };
    let codes: Vec<i32> = reports.iter().filter_map(ended).collect();
    let never_ran =
        |report: &Report| matches!(report.state, State::Waiting { .. }) && report.last_end.is_none();
    match codes.len() == reports.len() {
        true if codes.iter().all(|&code| code == 0) => "Succeeded",
        true => "Failed",
        false if reports.iter().any(never_ran) => "Pending",
        false => "Running",
    }
}

/// A condition, which keeps its time as long as it keeps its status.
fn condition(kind: &str, holds: bool, before: &PodStatus, now: Timestamp) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let unchanged = before
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind && condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: unchanged.or(Some(Time(now))),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn report(state: State, ready: bool) -> Report {
        Report { state, ready, ..Report::waiting("c", "weft/echo", "ContainerCreating", String::new()) }
    }

    fn end(code: i32) -> End {
        End { code, started: NOW, ended: NOW }
    }

    fn status(reports: &[Report]) -> PodStatus {
        let ips = ["10.244.1.2".parse().unwrap()];
        pod_status(reports, &ips, &["172.30.0.11".parse().unwrap()], &PodStatus::default(), NOW)
    }

    fn ready(status: &PodStatus) -> &str {
        let conditions = status.conditions.as_ref().unwrap();
        &conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().status
    }

    #[test]
    fn a_pod_is_ready_when_all_its_containers_are() {
        let running = |ready| report(State::Running { since: NOW }, ready);
        let one = status(&[running(true), running(false)]);
        assert_eq!((one.phase.as_deref(), ready(&one)), (Some("Running"), "False"));
        let all = status(&[running(true), running(true)]);
        assert_eq!((all.pod_ip.as_deref(), ready(&all)), (Some("10.244.1.2"), "True"));
    }

    #[test]
    fn phases_follow_the_containers() {
        let waiting = |last_end| Report {
            last_end,
            ..report(State::Waiting { reason: "CrashLoopBackOff", message: String::new() }, false)
        };
        for (reports, phase) in [
            (vec![waiting(None)], "Pending"),
            (vec![waiting(Some(end(1)))], "Running"),
            (vec![report(State::Ended(end(0)), false)], "Succeeded"),
            (vec![report(State::Ended(end(0)), false), report(State::Ended(end(1)), false)], "Failed"),
            (vec![report(State::Ended(end(0)), false), waiting(Some(end(1)))], "Running"),
        ] {
            assert_eq!(status(&reports).phase.as_deref(), Some(phase), "{reports:?}");
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let later = Timestamp::from_second(60).unwrap();
        let reports = [report(State::Running { since: NOW }, true)];
        let before = status(&[report(State::Running { since: NOW }, false)]);
        let after = pod_status(&reports, &[], &["172.30.0.11".parse().unwrap()], &before, later);
        let times: Vec<_> = after
            .conditions
            .unwrap()
            .into_iter()
            .map(|condition| (condition.type_, condition.last_transition_time.unwrap().0 == later))
            .collect();
        assert!(
            times.contains(&("Ready".to_owned(), true)) && times.contains(&("Initialized".to_owned(), false))
        );
        assert_eq!(after.start_time, before.start_time);
    }
}
