//! The background process that holds a lab: the API server, what is outside, a runner and a supervisor for every
//! node. All of it ends with this process; removing what it leaves in the kernel is [`crate::teardown`]'s work.

use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::addressing::{API_PORT, GATEWAY, MOST_NODES, api_server, node_address};
use crate::apiserver::{ApiServer, Config};
use crate::daemons::Supervisor;
use crate::error::{Error, Result};
use crate::kubelet::Kubelet;
use crate::names::{LabName, node_name};
use crate::process::ProcessId;
use crate::requirements::{PLUGINS, Programs};
use crate::sandbox::Sandbox;
use crate::state::{LabDir, LabRecord, write_file};
use crate::{cluster_dns, kubeconfig, netns, outside, underlay};

/// A lab to be held.
pub struct Lab {
    /// Its name.
    pub name: LabName,
    /// Its folder, which exists.
    pub dir: LabDir,
    /// How many nodes it has.
    pub nodes: u8,
    /// The lab's own program.
    pub lab_program: PathBuf,
    /// Weft's programs.
    pub programs: Programs,
}

impl Lab {
    /// Makes the lab and holds it for good. Returns only with an error.
    pub fn hold(self) -> Result<()> {
        nix::unistd::setsid().map_err(Error::system("leave", "the terminal's session"))?;
        self.note(None)?;
        underlay::create(&self.name)?;
        for number in 1..=self.nodes {
            underlay::add_node(&self.name, number)?;
        }
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|source| Error::Spawn { program: "an asynchronous runtime".to_owned(), source })?
            .block_on(self.run())
    }

    async fn run(self) -> Result<()> {
        let inside = netns::run(&self.name.underlay(), || outside::listen(GATEWAY, API_PORT))?;
        let on_host = outside::listen(Ipv4Addr::LOCALHOST, 0)?;
        let failed =
            |source| Error::Socket { operation: "listen on", address: "127.0.0.1".to_owned(), source };
        let port = on_host.local_addr().map_err(failed)?.port();
        let _server = ApiServer::start(Config::default(), vec![inside, on_host]).map_err(failed)?;
        let client = kubeconfig::client(port)?;
        outside::start(&self.name)?;
        let nodes: Vec<(String, Ipv4Addr)> =
            (1..=self.nodes).map(|number| (node_name(number), node_address(number))).collect();
        cluster_dns::start(client.clone(), self.name.clone(), nodes.clone()).await?;
        for (node, address) in nodes {
            self.start_node(&node, address, client.clone())?;
        }
        write_file(&self.dir.kubeconfig(), &kubeconfig::text(&format!("127.0.0.1:{port}")))?;
        self.note(Some(port))?;
        std::future::pending().await
    }

    fn start_node(&self, node: &str, address: Ipv4Addr, client: kube::Client) -> Result<()> {
        let dir = self.dir.node(node);
        dir.create()?;
        for plugin in PLUGINS {
            let link = dir.cni_bin().join(plugin);
            symlink(self.programs.path(plugin), &link).map_err(Error::io("link", &link))?;
        }
        write_file(&dir.kubeconfig(), &kubeconfig::text(&api_server().to_string()))?;
        let (name, lab_program) = (self.name.clone(), self.lab_program.clone());
        Kubelet::new(name, self.dir.clone(), node.to_owned(), address, client, lab_program.clone()).start();
        let place = Sandbox {
            netns: Some(netns::path(&self.name.node(node))),
            hostname: Some(node.to_owned()),
            ..Sandbox::default()
        };
        let programs = self.programs.clone();
        Supervisor { node: node.to_owned(), address, dir, place, lab_program, programs }.start();
        Ok(())
    }

    fn note(&self, api_port: Option<u16>) -> Result<()> {
        let pid = std::process::id();
        let process = ProcessId::of(pid).ok_or(Error::Interrupted)?;
        let nodes = (1..=self.nodes).map(node_name).collect();
        self.dir.write_record(&LabRecord { process, nodes, api_port })
    }
}

/// Checks a number of nodes.
pub fn check_nodes(text: &str) -> std::result::Result<u8, String> {
    match text.parse() {
        Ok(number) if (1..=MOST_NODES).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from 1 to {MOST_NODES}")),
    }
}
