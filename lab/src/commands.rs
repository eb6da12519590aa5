//! What the commands do, one file each. Everything here runs in the foreground and finds the lab through its
//! folder.

mod demo;
mod down;
mod exec;
mod kubectl;
mod logs;
mod power;
mod status;
mod tour;
mod up;

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::cli::{Cli, Command, DEFAULT_NAME, DEFAULT_STATE_DIR, LabArgs};
use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::names::LabName;
use crate::requirements::Programs;
use crate::state::{LabDir, LabRecord};
use crate::{client, echo, kubeconfig};

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<()> {
    let context = CommandContext::new(cli.lab)?;
    match cli.command {
        Command::Up { shape } => block_on(up::run(&context, shape)),
        Command::Down => down::run(&context),
        Command::Demo { shape, keep } => block_on(demo::run(&context, shape, keep)),
        Command::Tour { shape, how } => block_on(tour::run(&context, shape, how)),
        Command::Stop { node } => power::stop(&context, node),
        Command::Start { node, number } => power::start(&context, node, number),
        Command::Exec { pod, namespace, command } => {
            block_on(exec::run(&context, &namespace, &pod, &command))
        }
        Command::Kubectl { arguments } => kubectl::run(&context, &arguments),
        Command::Status => block_on(status::run(&context)),
        Command::Logs { target, daemon, namespace } => match daemon {
            Some(daemon) => logs::of_daemon(&context, &target, &daemon),
            None => block_on(logs::of_pod(&context, &namespace, &target)),
        },
        Command::Hold { shape } => {
            let programs = context.programs()?;
            Lab { name: context.name, dir: context.dir, shape, lab_program: context.lab_program, programs }
                .hold()
        }
        Command::SandboxExec { sandbox, command } => sandbox.exec(&command),
        Command::Echo(arguments) => block_on(echo::run(arguments)),
        Command::Client { command } => block_on(client::run(command)),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Spawn { program: "an asynchronous runtime".to_owned(), source })?
        .block_on(work)
}

/// The lab that a command is about.
struct CommandContext {
    name: LabName,
    dir: LabDir,
    lab_program: PathBuf,
    bin_dir: PathBuf,
    state_dir: PathBuf,
}

impl CommandContext {
    fn new(arguments: LabArgs) -> Result<CommandContext> {
        let lab_program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
        let beside = lab_program.parent().map(PathBuf::from).unwrap_or_default();
        // The background process has another working folder.
        let state_dir =
            std::path::absolute(&arguments.state_dir).map_err(Error::io("find", &arguments.state_dir))?;
        Ok(CommandContext {
            dir: LabDir::new(&state_dir, &arguments.name),
            name: arguments.name,
            bin_dir: arguments.bin_dir.unwrap_or(beside),
            lab_program,
            state_dir,
        })
    }

    /// How to call this program again for the same lab, for people to copy.
    fn invocation(&self) -> String {
        self.invocation_of(std::env::args().next().unwrap_or_else(|| "weft-lab".to_owned()))
    }

    /// The same, where the folder of the programs is in the `PATH`.
    fn short_invocation(&self) -> String {
        self.invocation_of("weft-lab".to_owned())
    }

    fn invocation_of(&self, program: String) -> String {
        let mut words = vec![program];
        if self.name.to_string() != DEFAULT_NAME {
            words.push(format!("--name {}", self.name));
        }
        if self.state_dir.as_os_str() != DEFAULT_STATE_DIR {
            words.push(format!("--state-dir {}", self.state_dir.display()));
        }
        words.join(" ")
    }

    fn programs(&self) -> Result<Programs> {
        Programs::find(&self.bin_dir)
    }

    /// The record of the lab, which must be running.
    fn running(&self) -> Result<LabRecord> {
        match self.dir.record()? {
            Some(record) if record.process.is_alive() => Ok(record),
            _ => Err(Error::NoLab(self.name.to_string())),
        }
    }

    fn client(&self) -> Result<Client> {
        let port = self.running()?.api_port.ok_or_else(|| Error::NoLab(self.name.to_string()))?;
        kubeconfig::client(port)
    }

    /// The pod of that name, else the first one whose name begins with it, as those of a Deployment do.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        let failed = Error::api("find", format!("pod {namespace}/{name}"));
        let pods = Api::<Pod>::namespaced(self.client()?, namespace).list(&ListParams::default()).await;
        let pods = pods.map_err(failed)?.items;
        let beginning = format!("{name}-");
        let is_named = |pod: &&Pod| pod.name_any() == name;
        let begins =
            |pod: &&Pod| pod.metadata.deletion_timestamp.is_none() && pod.name_any().starts_with(&beginning);
        let found = pods.iter().find(is_named).or_else(|| pods.iter().find(begins));
        found.cloned().ok_or_else(|| Error::Invalid {
            what: "pod",
            value: name.to_owned(),
            reason: format!("namespace {namespace} has {}", named(&pods)),
        })
    }
}

fn named(pods: &[Pod]) -> String {
    match pods {
        [] => "no pods".to_owned(),
        pods => format!("only {}", pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", ")),
    }
}
