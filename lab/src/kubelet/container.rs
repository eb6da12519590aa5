//! One container: a process, started again by the pod's restartPolicy, probed while it runs, ended with
//! grace.

use std::fs::File;
use std::net::IpAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::watch;

use super::PATH;
use super::plan::{ContainerPlan, Program};
use super::probe::{self, Action, Judge, Probe};
use super::status::{End, Report, State};
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::process::ProcessId;
use crate::sandbox::Sandbox;

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// As in a pod's spec; Always where it says nothing.
    pub(super) fn parse(text: Option<&str>) -> RestartPolicy {
        match text {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    fn starts_again(self, code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// A container and all that is needed to run it.
pub(super) struct Container {
    pub(super) plan: ContainerPlan,
    pub(super) place: Sandbox,
    pub(super) lab_program: PathBuf,
    /// Where its output goes.
    pub(super) log: PathBuf,
    pub(super) restart: RestartPolicy,
    /// The pod's network namespace, by name, and the address that probes go to.
    pub(super) namespace: String,
    pub(super) address: IpAddr,
}

/// Where containers report to: one report for each, in the order of the spec.
pub(super) type Reports = watch::Sender<Vec<Report>>;
/// Becomes the grace period when the pod is to end.
pub(super) type Stop = watch::Receiver<Option<Duration>>;

impl Container {
    /// Runs until the pod is stopped or the container ended for good. `position` is its place in the reports.
    pub(super) async fn run(self, position: usize, reports: Reports, mut stop: Stop) {
        let report = |change: &dyn Fn(&mut Report)| {
            reports.send_if_modified(|reports| {
                let before = reports[position].clone();
                change(&mut reports[position]);
                reports[position] != before
            });
        };
        let mut backoff = Backoff::default();
        loop {
            let (started, clock) = (Timestamp::now(), Instant::now());
            let code = self.run_once(&report, &mut stop).await.unwrap_or_else(|error| {
                tracing::warn!(container = self.plan.name, %error, "cannot start");
                // As runtimes report what could not be started.
                128
            });
            let end = End { code, started, ended: Timestamp::now() };
            let stopped = stop.borrow().is_some();
            if stopped || !self.restart.starts_again(code) {
                report(&|report| (report.ready, report.state) = (false, State::Ended(end.clone())));
                return;
            }
            let wait = backoff.after(clock.elapsed());
            report(&|report| {
                let message = format!("ended with {code}; waiting {} ms to start it again", wait.as_millis());
                report.state = State::Waiting { reason: "CrashLoopBackOff", message };
                (report.ready, report.last_end) = (false, Some(end.clone()));
                report.restarts += 1;
            });
            let _ = tokio::time::timeout(wait, stop.wait_for(Option::is_some)).await;
        }
    }

    /// Starts the process and attends it to its end. Gives the exit code.
    async fn run_once(&self, report: &impl Fn(&dyn Fn(&mut Report)), stop: &mut Stop) -> Result<i32> {
        let mut child = self.start()?;
        let since = Timestamp::now();
        let ready = self.plan.readiness.is_none();
        report(&|report| (report.state, report.ready) = (State::Running { since }, ready));
        let failed = Error::io("wait for", &self.plan.name);
        let ended = tokio::select! {
            ended = child.wait() => Some(ended),
            () = self.probe(report) => None,
            grace = stopped(stop) => Some(terminate(&mut child, grace).await),
        };
        let status = match ended {
            Some(ended) => ended,
            None => child.wait().await,
        };
        status.map(exit_code).map_err(failed)
    }

    fn start(&self) -> Result<Child> {
        let failed = Error::io("open", &self.log);
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let copy = log.try_clone().map_err(Error::io("open", &self.log))?;
        let mut command = self.command();
        command.args(&self.plan.arguments).stdin(Stdio::null()).stdout(log).stderr(copy);
        let program = self.plan.name.clone();
        tokio::process::Command::from(command).spawn().map_err(|source| Error::Spawn { program, source })
    }

    /// The container's program in its place, without arguments.
    fn command(&self) -> Command {
        let place = self.place.clone().dying_with_me();
        let mut command = match &self.plan.program {
            Program::Host(program) => place.command(&self.lab_program, program),
            Program::Echo => {
                let mut command = place.command(&self.lab_program, &self.lab_program);
                command.arg("echo");
                command
            }
        };
        self.settle(&mut command);
        command
    }

    /// The environment and folder of every process of the container.
    fn settle(&self, command: &mut Command) {
        command.env_clear().env("PATH", PATH).env("HOME", "/");
        if let Some(hostname) = &self.place.hostname {
            command.env("HOSTNAME", hostname);
        }
        command.envs(self.plan.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.plan.folder.clone().unwrap_or_else(|| "/".into())).process_group(0);
    }

    /// Probes for as long as the container runs. Never returns where there is a probe.
    async fn probe(&self, report: &impl Fn(&dyn Fn(&mut Report))) {
        let Some(probe) = &self.plan.readiness else { return std::future::pending().await };
        tokio::time::sleep(probe.initial_delay).await;
        let mut judge = Judge::default();
        loop {
            let ready = judge.judge(probe, self.try_probe(probe).await.is_ok());
            report(&|report| report.ready = ready);
            tokio::time::sleep(judge.wait(probe)).await;
        }
    }

    async fn try_probe(&self, probe: &Probe) -> Result<()> {
        let Action::Exec(line) = &probe.action else {
            let action = probe.action.clone();
            return probe::reach(self.namespace.clone(), self.address, action, probe.timeout).await;
        };
        let what = line.join(" ");
        let failed = |reason: String| Error::Probe { what: what.clone(), reason };
        let (program, arguments) = line.split_first().ok_or_else(|| failed("no command".to_owned()))?;
        let mut command = self.place.clone().dying_with_me().command(&self.lab_program, program);
        self.settle(&mut command);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(probe.timeout, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(status.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("takes too long".to_owned())),
        }
    }
}

/// Waits for the pod's end, and gives the grace period.
async fn stopped(stop: &mut Stop) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(grace) => grace.unwrap_or_default(),
        // Nobody is left to stop it: then nobody has patience either.
        Err(_) => Duration::ZERO,
    }
}

/// SIGTERM to the process, then after the grace period SIGKILL to all that it started.
async fn terminate(child: &mut Child, grace: Duration) -> std::io::Result<ExitStatus> {
    let Some(pid) = child.id() else { return child.wait().await };
    if let Some(process) = ProcessId::of(pid) {
        process.signal(Signal::SIGTERM);
    }
    if let Ok(ended) = tokio::time::timeout(grace, child.wait()).await {
        return ended;
    }
    if let Ok(group) = i32::try_from(pid) {
        // The process was not waited for yet: the number is still its own. It may be gone: all the better.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    child.wait().await
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies() {
        let starts = |policy| [0, 1].map(|code| RestartPolicy::parse(policy).starts_again(code));
        assert_eq!(starts(None), [true, true]);
        assert_eq!(starts(Some("OnFailure")), [false, true]);
        assert_eq!(starts(Some("Never")), [false, false]);
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; sleep 1000 & echo $!; wait"]).process_group(0);
        command.stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(command).spawn().unwrap();
        let mut line = String::new();
        let mut output = tokio::io::BufReader::new(child.stdout.take().unwrap());
        tokio::io::AsyncBufReadExt::read_line(&mut output, &mut line).await.unwrap();
        let grandchild = ProcessId::of(line.trim().parse().unwrap()).unwrap();
        let status = terminate(&mut child, Duration::from_millis(50)).await.unwrap();
        assert_eq!(exit_code(status), 128 + 9);
        assert!(grandchild.wait(Duration::from_secs(10)));
    }
}
