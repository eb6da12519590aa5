//! `weft`: the command that people type.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use weft_installer::plugins::Removal;
use weft_installer::policy::Finding;
use weft_installer::preflight::Output;
use weft_installer::{
    bgp, chart, dns, doctor, flows, install, ipam, leftovers, manifests, plugins, policy, preflight,
    self_test, status, trace, uninstall,
};

/// Weft: pod network, Services and DNS for a Kubernetes cluster.
#[derive(Parser)]
#[command(name = "weft", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check whether Weft can work on this machine, and say what to do where it cannot. Changes nothing; run
    /// it as root on each node, or for all nodes of a cluster at once with --all-nodes. Exits with 1 where
    /// something fails.
    Preflight(preflight::Options),
    /// Print the manifests that put Weft on a cluster, as YAML: `weft manifests … | kubectl apply -f -`.
    Manifests(manifests::Values),
    /// Write the Helm chart, whose values are the flags of `weft manifests`, into a folder.
    Chart {
        /// The folder, which is made where it is not there.
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Put Weft on the cluster of the kubeconfig, or bring it to another version or other values, and wait
    /// until every node is ready and pods of every node reach a Service by its name.
    Install(install::Options),
    /// Show what of Weft runs on which node. Exits with 1 where something is not ready.
    Status(status::Options),
    /// Find what is wrong in a cluster's network, where, and what mends it, the worst first; one line where
    /// nothing is found. Exits with 0 then, with 1 where something is found, and with 2 where the cluster
    /// cannot be looked at.
    Doctor(doctor::Options),
    /// Check that pods of every node reach a Service by its name, with pods that are deleted afterwards.
    SelfTest(self_test::Options),
    /// Ask which node has which addresses for its pods.
    Ipam {
        #[command(subcommand)]
        command: ipam::Command,
    },
    /// Ask the DNS server why a name resolves, or why not.
    Dns {
        #[command(subcommand)]
        command: dns::Command,
    },
    /// Ask the agents what network policies let through.
    Policy {
        #[command(subcommand)]
        command: policy::Command,
    },
    /// Follow a packet from one end of a connection to the other, and its answer back: where it ends, why, and
    /// what mends it. Nothing is sent. Exits with 0 where it arrives, with 1 where it does not, and with 2
    /// where that cannot be told.
    Trace(trace::Options),
    /// Show who talks with whom: connections, what network policies deny, DNS questions, with the names of pods
    /// and Services, as the agents see them.
    Flows(flows::Options),
    /// Ask the agents how their BGP sessions are.
    Bgp {
        #[command(subcommand)]
        command: bgp::Command,
    },
    /// Take Weft from the cluster and from all of its nodes. Running pods stay, without Services and other
    /// nodes' pods.
    Uninstall(uninstall::Options),
    /// Copy the CNI plugins to where the container runtime looks for them. Runs on each node, before the
    /// agent.
    InstallPlugins {
        /// The folder that holds weft-cni and weft-ipam.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The runtime's plugin folder.
        #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
        to: PathBuf,
    },
    /// Remove the CNI plugins again, the pods' bridge, and what the plugins kept, and put kernel settings back,
    /// unless pods still need them. Runs on each node, after the agent.
    RemovePlugins {
        /// The runtime's plugin folder.
        #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
        from: PathBuf,
        /// The folder of the reservations of pod addresses.
        #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/networks/weft")]
        leases: PathBuf,
    },
    /// What a pod of `weft preflight --all-nodes` runs.
    #[command(hide = true)]
    PreflightPod(preflight::nodes::Pod),
    /// What a pod of the self-test runs.
    #[command(hide = true)]
    SelfTestPod {
        #[command(subcommand)]
        part: self_test::pod::Part,
    },
    /// Do nothing: the container of a pod whose init containers did the work.
    #[command(hide = true)]
    Pause,
}

pub(crate) fn main() -> ExitCode {
    match run(parse().command) {
        Ok(code) => code,
        Err(error) => {
            // Each error already tells its cause.
            eprintln!("weft: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As a plugin of kubectl it is called `kubectl weft` (kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins).
fn parse() -> Cli {
    let called = std::env::args_os().next().unwrap_or_default();
    let is_plugin = Path::new(&called).file_name().is_some_and(|name| name == "kubectl-weft");
    let command = Cli::command();
    let command = if is_plugin { command.bin_name("kubectl weft") } else { command };
    let parsed = command.try_get_matches().and_then(|matches| {
        let mut cli = Cli::from_arg_matches(&matches)?;
        if let (Command::Install(options), Some((_, own))) = (&mut cli.command, matches.subcommand()) {
            options.given = install::given(own);
        }
        Ok(cli)
    });
    parsed.unwrap_or_else(|error| error.exit())
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Preflight(options) => return check(&options),
        Command::Manifests(values) => {
            values.check()?;
            print!("{}", manifests::render(&values));
        }
        Command::Chart { to } => write_chart(&to)?,
        Command::Install(options) => wait_for(install::run(&options))??,
        Command::Status(options) => {
            let status = wait_for(status::run(&options))??;
            print!("{status}");
            return Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Doctor(options) => return Ok(find(&options)),
        Command::Ipam { command: ipam::Command::Status(options) } => {
            let status = wait_for(ipam::status(&options))??;
            print!("{status}");
            return Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::SelfTest(options) => wait_for(self_test::command(&options))??,
        Command::Uninstall(options) => wait_for(uninstall::run(&options))??,
        Command::Dns { command: dns::Command::Explain(question) } => {
            print!("{}", wait_for(dns::explain(&question))??);
        }
        Command::Dns { command: dns::Command::CheckCorefile(question) } => {
            return check_corefile(&question);
        }
        Command::Policy { command: policy::Command::Explain(question) } => {
            return Ok(explain_policy(&question));
        }
        Command::Trace(options) => return Ok(follow(&options)),
        Command::Flows(options) => wait_for(flows::run(&options))??,
        Command::Bgp { command: bgp::Command::Status(options) } => {
            let report = wait_for(bgp::status(&options))??;
            match options.output {
                Output::Table => print!("{report}"),
                Output::Json => println!("{}", report.json()),
            }
            return Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::InstallPlugins { from, to } => {
            for path in plugins::install(&from, &to)? {
                println!("installed {}", path.display());
            }
        }
        Command::RemovePlugins { from, leases } => match plugins::remove(&from, &leases)? {
            Removal::Done(paths) => {
                paths.iter().for_each(|path| println!("removed {}", path.display()));
                leftovers::remove(&leases)?.iter().for_each(|line| println!("{line}"));
            }
            Removal::Needed(pods) => println!("kept the plugins: {pods} addresses are still pods'"),
        },
        Command::PreflightPod(pod) => preflight::nodes::run_in_pod(&pod)?,
        Command::SelfTestPod { part } => self_test::pod::run(&part)?,
        Command::Pause => loop {
            thread::park();
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn write_chart(folder: &Path) -> Result<()> {
    for (path, text) in chart::files() {
        let path = folder.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn wait_for<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?.block_on(work))
}

/// A cluster that cannot be looked at is neither well nor not.
fn find(options: &doctor::Options) -> ExitCode {
    let report = match wait_for(doctor::run(options)) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return cannot_tell(&error),
        Err(error) => return cannot_tell(&error),
    };
    match options.output {
        Output::Table => print!("{report}"),
        Output::Json => println!("{}", report.json()),
    }
    if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What cannot be told is neither allowed nor denied.
fn explain_policy(question: &policy::Explain) -> ExitCode {
    let answer = match wait_for(policy::explain(question)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return cannot_tell(&error),
        Err(error) => return cannot_tell(&error),
    };
    match question.output {
        Output::Table => print!("{answer}"),
        Output::Json => println!("{}", answer.json()),
    }
    match answer.finding() {
        Finding::Allowed => ExitCode::SUCCESS,
        Finding::Denied => ExitCode::FAILURE,
        Finding::Unknown => ExitCode::from(2),
    }
}

fn check_corefile(question: &dns::CheckCorefile) -> Result<ExitCode> {
    Ok(match wait_for(dns::check_corefile(question))? {
        Ok(verdict) => {
            print!("{verdict}");
            if verdict.is_supported() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => cannot_tell(&error),
    })
}

fn follow(options: &trace::Options) -> ExitCode {
    let report = match wait_for(trace::run(options)) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return cannot_tell(&error),
        Err(error) => return cannot_tell(&error),
    };
    match options.output {
        Output::Table => print!("{report}"),
        Output::Json => println!("{}", report.json()),
    }
    match report.outcome() {
        trace::Outcome::Arrives => ExitCode::SUCCESS,
        trace::Outcome::DoesNotArrive => ExitCode::FAILURE,
        trace::Outcome::Unknown => ExitCode::from(2),
    }
}

fn cannot_tell(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("weft: {error}");
    ExitCode::from(2)
}

fn check(options: &preflight::Options) -> Result<ExitCode> {
    let (text, json, passes) = if options.all_nodes {
        let reports = wait_for(preflight::nodes::run(options))??;
        (reports.to_string(), reports.json(), reports.passes())
    } else {
        let report = preflight::run(options)?;
        (report.to_string(), report.json(), report.passes())
    };
    match options.output {
        Output::Table => print!("{text}"),
        Output::Json => println!("{json}"),
    }
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
