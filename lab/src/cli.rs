//! The command line of `weft-lab`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::client::ClientCommand;
use crate::echo::EchoArgs;
use crate::names::LabName;
use crate::sandbox::Sandbox;
use crate::shape::{Shape, check_nodes};

/// The lab that a command is about when none is named.
pub const DEFAULT_NAME: &str = "weft";
/// Where labs keep their files when no folder is named.
pub const DEFAULT_STATE_DIR: &str = "/run/weft-lab";

/// A Kubernetes cluster's network on one machine: nodes are network namespaces, everything else is real.
#[derive(Parser, Clone, Debug)]
#[command(name = "weft-lab", version, about)]
pub struct Cli {
    /// What all commands need to find a lab
    #[command(flatten)]
    pub lab: LabArgs,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Which lab, and with which programs.
#[derive(Args, Clone, Debug)]
pub struct LabArgs {
    /// The lab's name; labs with different names can run side by side
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    pub name: LabName,
    /// The folder below which labs keep their files
    #[arg(long, global = true, default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// The folder of Weft's programs [default: that of weft-lab]
    #[arg(long, global = true)]
    pub bin_dir: Option<PathBuf>,
}

/// How the tour is gone.
#[derive(Args, Clone, Copy, Debug)]
pub struct TourArgs {
    /// Wait for Enter before each step
    #[arg(long)]
    pub pause: bool,
    /// Leave the lab running, with the tour's pods
    #[arg(long)]
    pub keep: bool,
    /// Print it as Markdown
    #[arg(long, conflicts_with = "pause")]
    pub markdown: bool,
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Start a lab in the background
    Up {
        /// What is to be made
        #[command(flatten)]
        shape: Shape,
    },
    /// Remove a lab with all its processes, namespaces and files
    Down,
    /// Start a lab, deploy a three-tier application and check all of its network
    Demo {
        /// What is to be made
        #[command(flatten)]
        shape: Shape,
        /// Leave the lab running
        #[arg(long)]
        keep: bool,
    },
    /// Walk through a cluster's network, from pod to pod to policies: each step with its command, what the
    /// kernel says, and what that means. In the lab of that name if it runs, else in one made for it
    Tour {
        /// What is to be made, where no such lab runs
        #[command(flatten)]
        shape: Shape,
        /// How it is gone
        #[command(flatten)]
        how: TourArgs,
    },
    /// Switch a node off, as by a power cut: its processes and pods end, what is on its disk stays
    Stop {
        /// The node's name
        node: String,
    },
    /// Switch a node on again; its pods start anew
    Start {
        /// The node's name
        node: String,
        /// Other addresses: those of the node with this number
        #[arg(long, value_parser = check_nodes)]
        number: Option<u8>,
    },
    /// Run a program inside a pod
    Exec {
        /// The pod's name, or the beginning of it
        pod: String,
        /// The pod's namespace
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run kubectl against the lab; without arguments, print how to point your own at it
    Kubectl {
        /// kubectl's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show the lab's nodes, daemons and pods
    Status,
    /// Print what a daemon or a pod's containers wrote
    Logs {
        /// A node, followed by a daemon; or the pod's name
        target: String,
        /// weft-agent, weft-proxy or weft-dns
        daemon: Option<String>,
        /// The pod's namespace
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
    /// Hold a lab (what `up` starts in the background)
    #[command(hide = true)]
    Hold {
        /// What is to be made
        #[command(flatten)]
        shape: Shape,
    },
    /// Run a program in another place
    #[command(hide = true)]
    SandboxExec {
        /// The place
        #[command(flatten)]
        sandbox: Sandbox,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Serve as the image weft/echo
    #[command(hide = true)]
    Echo(EchoArgs),
    /// Make requests from where the program runs
    #[command(hide = true)]
    Client {
        /// The request
        #[command(subcommand)]
        command: ClientCommand,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::addressing::IpFamily;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kubectl_s_flags_are_kubectl_s() {
        let cli = Cli::try_parse_from(["weft-lab", "--name", "x", "kubectl", "get", "pods", "-A"]).unwrap();
        let Command::Kubectl { arguments } = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!(arguments, ["get", "pods", "-A"]);
        assert_eq!(cli.lab.name.to_string(), "x");
    }

    #[test]
    fn no_command_s_argument_shadows_a_global_one() {
        for line in [
            ["exec", "pod", "--", "true"].as_slice(),
            &["logs", "node1", "weft-dns"],
            &["client", "lookup", "backend", "AAAA"],
            &["client", "get", "http://backend/"],
            &["echo"],
        ] {
            let cli = Cli::try_parse_from(["weft-lab"].iter().chain(line)).unwrap();
            assert_eq!(cli.lab.name.to_string(), "weft", "{line:?}");
        }
    }

    #[test]
    fn a_lab_has_both_families_unless_told_otherwise() {
        let family = |line: &[&str]| match Cli::try_parse_from(line).unwrap().command {
            Command::Up { shape } => shape.ip_family,
            other => panic!("{other:?}"),
        };
        assert_eq!(family(&["weft-lab", "up"]), IpFamily::Dual);
        assert_eq!(family(&["weft-lab", "up", "--ip-family", "ipv6"]), IpFamily::Ipv6);
    }

    #[test]
    fn a_number_of_nodes_that_cannot_be_is_refused() {
        for bad in ["0", "201", "x"] {
            assert!(Cli::try_parse_from(["weft-lab", "up", "--nodes", bad]).is_err(), "{bad}");
        }
    }
}
