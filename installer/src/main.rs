//! `weft`: the command that people type.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use weft_installer::{manifests, plugins};

/// Weft: pod network, Services and DNS for a Kubernetes cluster.
#[derive(Parser)]
#[command(name = "weft", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the manifests that put Weft on a cluster, as YAML: `weft manifests … | kubectl apply -f -`.
    Manifests(manifests::Values),
    /// Copy the CNI plugins to where the container runtime looks for them. Runs on each node, before the agent.
    InstallPlugins {
        /// The folder that holds weft-cni and weft-ipam.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The runtime's plugin folder.
        #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
        to: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Manifests(values) => print!("{}", manifests::render(&values)),
        Command::InstallPlugins { from, to } => {
            for path in plugins::install(&from, &to)? {
                println!("installed {}", path.display());
            }
        }
    }
    Ok(())
}
