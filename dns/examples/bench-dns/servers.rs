//! The servers, each with the same names and one core.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_bench::api::Server;
use weft_bench::cluster::Size;
use weft_bench::process::Daemon;

use crate::client::Kind;
use crate::names::{FOREIGN, ZONE, foreign_zone_file, records, zone_file};
use crate::{bare, text};

/// The core that each server has; those that are not asked do nothing.
const CORE: &str = "0";
/// How long a start may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Weft,
    Bare,
    Knot,
    Nsd,
    Unbound,
}

/// A server that answers.
pub(crate) struct Running {
    pub(crate) contender: Contender,
    daemon: Daemon,
    _folder: TempDir,
    _api: Option<Server>,
}

impl Contender {
    pub(crate) const ALL: [Contender; 5] =
        [Contender::Weft, Contender::Bare, Contender::Knot, Contender::Nsd, Contender::Unbound];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Weft => "weft-dns",
            Contender::Bare => "bare recvmmsg and hash",
            Contender::Knot => "Knot",
            Contender::Nsd => "NSD",
            Contender::Unbound => "Unbound",
        }
    }

    pub(crate) fn port(self) -> u16 {
        5300 + self as u16
    }

    /// The others do not forward.
    pub(crate) fn answers(self, kind: Kind) -> bool {
        kind != Kind::Forwarded || matches!(self, Contender::Weft | Contender::Unbound)
    }
}

impl Running {
    /// Starts a server on one core, and waits until it answers.
    pub(crate) fn start(contender: Contender, weft: &Path, size: Size) -> Running {
        Running::start_on(CORE, contender, weft, size)
    }

    /// Starts a server on those cores.
    pub(crate) fn start_on(cores: &str, contender: Contender, weft: &Path, size: Size) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let api = (contender == Contender::Weft).then(|| Server::start(size));
        let arguments = match (contender, &api) {
            (Contender::Weft, Some(api)) => weft_dns(weft, api),
            (Contender::Knot, _) => knot(folder.path(), size),
            (Contender::Nsd, _) => nsd(folder.path(), size),
            (Contender::Unbound, _) => unbound(folder.path(), size),
            _ => bare::arguments(contender.port(), size),
        };
        let log = folder.path().join("log");
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).args(arguments).env_remove("RUST_LOG");
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let daemon = Daemon(command.spawn().unwrap());
        await_answer(contender, &log);
        Running { contender, daemon, _folder: folder, _api: api }
    }

    /// The API server that weft-dns follows.
    pub(crate) fn api(&self) -> &Server {
        self._api.as_ref().unwrap()
    }
}

impl Deref for Running {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

/// Asks until the first Service is answered with an address.
fn await_answer(contender: Contender, log: &Path) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (question, start) = (bare::question(&crate::names::service(0)), Instant::now());
    loop {
        assert!(start.elapsed() < PATIENCE, "{} does not answer: {}", contender.name(), text(log));
        let mut reply = [0; 512];
        let sent = socket.send_to(&question, ("127.0.0.1", contender.port()));
        // NOERROR, and one answer.
        if sent.and_then(|_| socket.recv(&mut reply)).is_ok() && reply[3] & 0x0f == 0 && reply[7] == 1 {
            return;
        }
        // An answer that came at once was none.
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn weft_dns(program: &Path, api: &Server) -> Vec<String> {
    let [port, upstream] = [Contender::Weft, Contender::Nsd].map(Contender::port);
    words(&format!(
        "{} --kubeconfig {} --listen 127.0.0.1:{port} --upstream 127.0.0.1:{upstream} --health-bind-address 127.0.0.1:0 \
         --ready-bind-address 127.0.0.1:0 --metrics-bind-address 127.0.0.1:0",
        program.display(),
        api.kubeconfig().display()
    ))
}

/// Writes a configuration, and gives the path of the file.
fn configuration(folder: &Path, text: &str) -> String {
    let file = folder.join("conf");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// Writes both zones.
fn zones(folder: &Path, size: Size) {
    fs::write(folder.join(ZONE), zone_file(size)).unwrap();
    fs::write(folder.join(FOREIGN), foreign_zone_file()).unwrap();
}

fn knot(folder: &Path, size: Size) -> Vec<String> {
    zones(folder, size);
    let (port, at) = (Contender::Knot.port(), folder.display());
    let text = format!(
        "server:\n    rundir: {at}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
         database:\n    storage: {at}\n    timer-db-max-size: 1M\n    journal-db-max-size: 1M\n\
         zone:\n  - domain: {ZONE}\n    file: {at}/{ZONE}\n    zonefile-sync: -1\n    journal-content: none\n    semantic-checks: off\n"
    );
    words(&format!("knotd -c {}", configuration(folder, &text)))
}

fn nsd(folder: &Path, size: Size) -> Vec<String> {
    zones(folder, size);
    let (port, at) = (Contender::Nsd.port(), folder.display());
    let zone = |name| format!("zone:\n  name: {name}\n  zonefile: {at}/{name}\n");
    let text = format!(
        "server:\n  server-count: 1\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: {at}\n  database: \"\"\n\
         \x20 pidfile: {at}/pid\n  xfrdfile: {at}/xfrd\n  zonelistfile: {at}/list\n  rrl-ratelimit: 0\n\
         remote-control:\n  control-enable: no\n{}{}",
        zone(ZONE),
        zone(FOREIGN)
    );
    words(&format!("nsd -d -c {}", configuration(folder, &text)))
}

fn unbound(folder: &Path, size: Size) -> Vec<String> {
    let data = records(size).map(|(owner, data)| format!("  local-data: \"{owner}. 30 IN {data}\"\n"));
    let (port, upstream) = (Contender::Unbound.port(), Contender::Nsd.port());
    let text = format!(
        "server:\n  num-threads: 1\n  interface: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  directory: {at}\n  pidfile: {at}/pid\n\
         \x20 use-syslog: no\n  do-daemonize: no\n  module-config: iterator\n  do-not-query-localhost: no\n\
         \x20 local-zone: {ZONE}. static\n{}remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: {FOREIGN}.\n  forward-addr: 127.0.0.1@{upstream}\n",
        data.collect::<String>(),
        at = folder.display()
    );
    words(&format!("unbound -d -c {}", configuration(folder, &text)))
}
