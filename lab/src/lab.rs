//! The background process that holds a lab: the API server, what is outside, and the nodes. All of it ends
//! with this process; removing what it leaves in the kernel is [`crate::teardown`]'s work.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};

use crate::addressing::{API_PORT, Ipam};
use crate::apiserver::{ApiServer, Config};
use crate::error::{Error, Result};
use crate::names::{LabName, node_name};
use crate::nodes::{Nodes, Site};
use crate::process::ProcessId;
use crate::requirements::Programs;
use crate::shape::Shape;
use crate::state::{LabDir, LabRecord, make_dir, write_file};
use crate::{access, cluster_dns, control, kubeconfig, netns, outside, underlay};

/// A lab to be held.
pub struct Lab {
    /// Its name.
    pub name: LabName,
    /// Its folder, which exists.
    pub dir: LabDir,
    /// What it is made of.
    pub shape: Shape,
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
        if self.shape.ebpf {
            for (kind, folder) in [("bpf", self.dir.bpffs()), ("cgroup2", self.dir.cgroups())] {
                make_dir(&folder)?;
                mount(Some(kind), &folder, Some(kind), MsFlags::empty(), None::<&str>)
                    .map_err(Error::system("mount", folder.display()))?;
            }
        }
        underlay::create(&self.name, self.shape.ip_family)?;
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|source| Error::Spawn { program: "an asynchronous runtime".to_owned(), source })?
            .block_on(self.run())
    }

    async fn run(self) -> Result<()> {
        let families = self.shape.ip_family;
        let (listeners, port) = self.listeners()?;
        let config = Config {
            service_cidrs: families.service_cidrs(),
            // Where nodes claim blocks, nobody gives them a part.
            cluster_cidrs: match self.shape.ipam {
                Ipam::NodeCidr => families.cluster_cidrs(),
                Ipam::Blocks => Vec::new(),
            },
            advertise: Some(families.api_server()),
            lab: Some(self.name.clone()),
            pods: Some(self.dir.clone()),
            ..Config::default()
        };
        let failed =
            |source| Error::Socket { operation: "listen on", address: "127.0.0.1".to_owned(), source };
        let _server = ApiServer::start(config, listeners).map_err(failed)?;
        let client = kubeconfig::client(port)?;
        outside::start(&self.name, &families.gateways())?;
        access::create(&client).await?;
        cluster_dns::start(client, self.name.clone(), families).await?;
        let (control, nodes) = (control::listen(&self.dir.control())?, self.shape.nodes);
        let site = self.site(port);
        let failed =
            |error| Error::Spawn { program: "the nodes".to_owned(), source: std::io::Error::other(error) };
        let nodes = tokio::task::spawn_blocking(move || Nodes::on(site, nodes)).await.map_err(failed)??;
        tokio::task::spawn_blocking(move || control::serve(&control, nodes));
        write_file(&self.dir.kubeconfig(), &kubeconfig::text(&format!("127.0.0.1:{port}")))?;
        self.note(Some(port))?;
        std::future::pending().await
    }

    /// The API server's listeners, on the gateway's addresses and on the host's loopback, and the port of the
    /// latter.
    fn listeners(&self) -> Result<(Vec<TcpListener>, u16)> {
        let mut listeners = Vec::new();
        for gateway in self.shape.ip_family.gateways() {
            listeners.push(netns::run(&self.name.underlay(), move || outside::listen(gateway, API_PORT))?);
        }
        let on_host = outside::listen(Ipv4Addr::LOCALHOST.into(), 0)?;
        let port = on_host.local_addr().map_err(Error::io("find the port of", "the API server"))?.port();
        listeners.push(on_host);
        Ok((listeners, port))
    }

    fn site(&self, api_port: u16) -> Site {
        Site {
            name: self.name.clone(),
            dir: self.dir.clone(),
            shape: self.shape,
            lab_program: self.lab_program.clone(),
            programs: self.programs.clone(),
            api_port,
        }
    }

    fn note(&self, api_port: Option<u16>) -> Result<()> {
        let pid = std::process::id();
        let process = ProcessId::of(pid).ok_or(Error::Interrupted)?;
        let nodes = (1..=self.shape.nodes).map(node_name).collect();
        self.dir.write_record(&LabRecord { process, nodes, api_port })
    }
}
