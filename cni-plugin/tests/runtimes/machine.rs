//! A machine for a runtime to run on: a network namespace and a folder, with the built plugins and those of
//! Debian.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::RtnetlinkClient;
use weft_testkit::namespace::run_in;

/// The plugins of package containernetworking-plugins.
pub(crate) const REFERENCE: &str = "/usr/lib/cni";
/// How long a connection may take before it counts as impossible.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is of pods on a machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    /// Interfaces, but for the bridge and its like, which stay.
    veths: BTreeSet<String>,
    reserved: BTreeSet<String>,
    /// The nf_tables rules of all programs.
    pub(crate) ruleset: String,
}

/// A machine. Gone when dropped.
pub(crate) struct Machine {
    pub(crate) namespace: Namespace,
    folder: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let machine =
            Machine { namespace: Namespace::temporary().unwrap(), folder: tempfile::tempdir().unwrap() };
        machine.run("ip", &["link", "set", "lo", "up"]);
        for folder in [machine.bin_dir(), machine.conf_dir()] {
            fs::create_dir(folder).unwrap();
        }
        machine.install(env!("CARGO_BIN_EXE_weft-cni"), &["weft-cni", "loopback"]);
        machine
    }

    /// Puts a program among the plugins, under these names.
    pub(crate) fn install(&self, program: impl AsRef<Path>, names: &[&str]) {
        for name in names {
            symlink(&program, self.bin_dir().join(name)).unwrap();
        }
    }

    /// Puts a plugin of Debian's among the plugins.
    pub(crate) fn install_reference(&self, name: &str) {
        let program = Path::new(REFERENCE).join(name);
        assert!(program.exists(), "{} is missing; it is in containernetworking-plugins", program.display());
        self.install(program, &[name]);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn bin_dir(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    pub(crate) fn conf_dir(&self) -> PathBuf {
        self.folder.path().join("net.d")
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("networks")
    }

    /// Weft's plugin as its agent configures it, for these ranges.
    pub(crate) fn plugin(&self, subnets: &[&str]) -> Value {
        let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
        json!({
            "type": "weft-cni", "bridge": "cni0", "isDefaultGateway": true, "forceAddress": true,
            "portIsolation": true, "capabilities": {"portMappings": true, "bandwidth": true},
            "ipam": {"type": "weft-ipam", "ranges": ranges, "dataDir": self.data_dir()},
        })
    }

    /// The same, with host ports left to the reference plugin after it.
    pub(crate) fn with_portmap(&self, subnets: &[&str]) -> [Value; 2] {
        self.install_reference("portmap");
        let mut plugin = self.plugin(subnets);
        plugin["capabilities"] = json!({});
        [plugin, json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}})]
    }

    /// Writes a configuration list as Weft's agent does: into the same folder under another name, then
    /// renamed.
    pub(crate) fn configure(&self, version: &str, plugins: &[Value]) {
        let list = json!({"cniVersion": version, "name": "weft", "plugins": plugins});
        let unfinished = self.conf_dir().join(".10-weft.conflist.new");
        fs::write(&unfinished, list.to_string()).unwrap();
        fs::rename(unfinished, self.conf_dir().join("10-weft.conflist")).unwrap();
    }

    /// Runs a program in the machine's network, which must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        run_in(&self.namespace, program, arguments)
    }

    pub(crate) fn traces(&self) -> Traces {
        let mut route = self.namespace.run(RtnetlinkClient::open).unwrap().unwrap();
        let links = route.links().unwrap().into_iter();
        Traces {
            veths: links.filter(|link| link.kind.as_deref() == Some("veth")).map(|link| link.name).collect(),
            reserved: self.reserved(),
            ruleset: self.run("nft", &["list", "ruleset"]),
        }
    }

    /// The addresses of reservations.
    pub(crate) fn reserved(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.data_dir().join("weft")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.parse::<IpAddr>().is_ok()).collect()
    }
}

impl Traces {
    pub(crate) fn pods(&self) -> (usize, usize) {
        (self.veths.len(), self.reserved.len())
    }
}

/// What a server says to a client in the namespace, up to the end of its stream.
pub(crate) fn hear(namespace: &Namespace, server: SocketAddr) -> std::io::Result<String> {
    namespace
        .run(|| {
            let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
        .unwrap()
}
