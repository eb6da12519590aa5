//! The program itself: its flags, its HTTP endpoints and its end. It runs against an API server that is not
//! there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use weft_testkit::wait::{eventually, eventually_ok};

use crate::api::{self, CONFIG_MAPS, SERVICES};
use crate::peers::{Upstream, dig};
use crate::scripted_upstream::ScriptedUpstream;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_weft-dns");
pub(crate) const HTTP: [&str; 3] =
    ["--health-bind-address", "--ready-bind-address", "--metrics-bind-address"];

/// An address at which nothing listens.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

/// A kubeconfig of the API server at `server`.
fn kubeconfig(server: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        clusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}]\n\
        contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

/// The program on loopback, and the addresses that it says it has taken.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) log: BufReader<ChildStderr>,
    pub(crate) dns: SocketAddr,
    /// Where further `--listen`, and the flags for encrypted DNS, led.
    pub(crate) also: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    _kubeconfig: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start(server: &str, lameduck: &str) -> Daemon {
        Daemon::start_with(server, &["--lameduck", lameduck])
    }

    /// Flags come after those of the test's own, upstreams in their place.
    pub(crate) fn start_with(server: &str, flags: &[&str]) -> Daemon {
        Daemon::start_at("127.0.0.1:0", server, flags)
    }

    /// Waits until it answers at `listen`.
    pub(crate) fn start_at(listen: &str, server: &str, flags: &[&str]) -> Daemon {
        Daemon::start_by(Daemon::command(), listen, server, flags)
    }

    /// The same by a command that runs the program.
    pub(crate) fn start_by(command: Command, listen: &str, server: &str, flags: &[&str]) -> Daemon {
        let mut daemon = Daemon::spawn_by(command, listen, server, flags);
        let given = |name: &str| flags.iter().filter(|flag| **flag == name).count();
        let mut dns = Vec::new();
        let also: usize = ["--listen", "--dot", "--doh", "--doq", "--doh3"].map(given).iter().sum();
        while dns.len() + daemon.http.len() < 4 + also {
            let mut line = String::new();
            assert_ne!(daemon.log.read_line(&mut line).unwrap(), 0, "the program ended early");
            let Some((_, rest)) = line.split_once("\"address\":\"") else { continue };
            let address = rest.split('"').next().unwrap().parse().unwrap();
            if line.contains("\"flag\"") { daemon.http.push(address) } else { dns.push(address) }
        }
        daemon.also = dns.split_off(1);
        daemon.dns = dns[0];
        daemon
    }

    /// As where nobody raised the limit on open files.
    fn command() -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\"", PROGRAM]);
        command
    }

    /// Waits for nothing.
    pub(crate) fn spawn_at(listen: &str, server: &str, flags: &[&str]) -> Daemon {
        Daemon::spawn_by(Daemon::command(), listen, server, flags)
    }

    fn spawn_by(mut command: Command, listen: &str, server: &str, flags: &[&str]) -> Daemon {
        let named = ["--upstream", "--corefile"].iter().any(|flag| flags.contains(flag));
        let upstream: &[&str] = if named { &[] } else { &["--upstream", NOBODY] };
        let (directory, kubeconfig) = kubeconfig(server);
        let http = HTTP.iter().filter(|flag| !flags.contains(flag));
        let mut child = command
            .args(["--listen", listen, "--log-format", "json"])
            .args(upstream)
            .args(flags)
            .args(http.flat_map(|flag| [*flag, "127.0.0.1:0"]))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let dns = listen.parse().unwrap();
        Daemon { child, log, dns, also: Vec::new(), http: Vec::new(), _kubeconfig: directory }
    }

    /// Reads the log until it says that.
    pub(crate) fn await_log(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "it ended without saying: {text}");
        }
    }

    pub(crate) fn get(&self, endpoint: usize, path: &str) -> String {
        get(self.http[endpoint], path)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The one line that the program says before it fails.
pub(crate) fn failure(arguments: &[&str]) -> String {
    let output =
        Command::new(PROGRAM).args(arguments).env_remove("KUBERNETES_SERVICE_HOST").output().unwrap();
    assert!(!output.status.success(), "{arguments:?} is accepted");
    String::from_utf8(output.stderr).unwrap()
}

/// Each query that waits for an upstream has a socket.
#[test]
fn as_many_questions_may_wait_as_the_flags_say_whatever_the_limit_on_files() {
    let daemon = Daemon::start(NOBODY, "0");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{files}");
}

#[test]
fn before_the_cluster_is_listed_it_lives_but_is_not_ready() {
    let daemon = Daemon::start(NOBODY, "0");
    assert!(daemon.get(0, "/health").starts_with("HTTP/1.1 200"));
    assert!(daemon.get(1, "/ready").starts_with("HTTP/1.1 503"));
    let text = dig("127.0.0.1", daemon.dns.port(), "backend.shop.svc.cluster.local A");
    assert!(text.contains("status: SERVFAIL"), "{text}");
    let metrics = daemon.get(2, "/metrics");
    assert!(metrics.contains("rcode=\"SERVFAIL\"") && metrics.ends_with("# EOF\n"), "{metrics}");
}

/// Asks until the answer has that status.
pub(crate) fn await_status(daemon: &Daemon, question: &str, status: &str) -> String {
    eventually_ok(format!("{status} for {question}"), || {
        let text = dig("127.0.0.1", daemon.dns.port(), question);
        if text.contains(&format!("status: {status}")) { Ok(text) } else { Err(text) }
    })
}

#[test]
fn it_follows_the_cluster() {
    let api = api::start();
    let daemon = Daemon::start(&api.address().to_string(), "0");
    let text = await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    assert!(text.contains("10.96.0.20"), "{text}");
    assert!(daemon.get(1, "/ready").starts_with("HTTP/1.1 200"));
    assert!(dig("127.0.0.1", daemon.dns.port(), "new.shop.svc.cluster.local A").contains("status: NXDOMAIN"));

    api::put_service(&api, "new", "10.96.0.21");
    let text = await_status(&daemon, "new.shop.svc.cluster.local A", "NOERROR");
    assert!(text.contains("10.96.0.21"), "{text}");
    api.delete(SERVICES, "new");
    await_status(&daemon, "new.shop.svc.cluster.local A", "NXDOMAIN");
    assert!(daemon.get(2, "/metrics").contains("weft_dns_zone_services{server="));
}

#[test]
fn what_was_known_before_is_answered_while_no_api_server_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cluster.json");
    let flags = ["--lameduck", "0", "--snapshot", file.to_str().unwrap()];
    let api = api::start();
    let daemon = Daemon::start_with(&api.address().to_string(), &flags);
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    eventually("the snapshot is kept", || file.exists());
    drop(daemon);

    let daemon = Daemon::start_with(NOBODY, &flags);
    assert!(await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR").contains("10.96.0.20"));
    assert!(daemon.get(1, "/ready").starts_with("HTTP/1.1 200"));
    drop(daemon);

    // What went meanwhile goes when the cluster is listed, and a damaged file keeps nobody from starting.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("backend", "bygone")).unwrap();
    let daemon = Daemon::start_with(&api.address().to_string(), &flags);
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    await_status(&daemon, "bygone.shop.svc.cluster.local A", "NXDOMAIN");
    assert!(daemon.get(2, "/metrics").contains("weft_dns_event_to_answer_duration_seconds_count{"));
    drop(daemon);
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let daemon = Daemon::start_with(NOBODY, &flags);
    await_status(&daemon, "backend.shop.svc.cluster.local A", "SERVFAIL");
}

#[test]
fn it_explains_what_a_pod_gets() {
    let api = api::start();
    let daemon = Daemon::start(&api.address().to_string(), "0");
    await_status(&daemon, "backend.shop.svc.cluster.local A", "NOERROR");
    let text = daemon.get(1, "/explain?namespace=shop&name=backend");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for line in [
        "1. backend.shop.svc.cluster.local. NOERROR",
        "10.96.0.20",
        "no ready endpoint stands behind 10.96.0.20",
        "The pod takes this answer.",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("\n2. "), "the walk ends with the first answer: {text}");
    let text = daemon.get(1, "/explain?namespace=shop&name=a.b&ndots=1&cluster=no&search=corp.example");
    assert!(text.contains("(ndots:1)") && text.contains("2. a.b.corp.example. SERVFAIL"), "{text}");
    assert!(daemon.get(1, "/explain?namespace=shop").starts_with("HTTP/1.1 400"));
    assert!(daemon.get(1, "/explain?namespace=shop&name=a&type=b").contains("B is no type of records"));
}

#[test]
fn it_follows_the_config_map_of_kube_dns() {
    let (api, upstream) = (api::start(), Upstream::start());
    let daemon = Daemon::start(&api.address().to_string(), "0");
    await_status(&daemon, "www.example.com A", "SERVFAIL");
    let address = upstream.address;
    api::put_config_map(&api, &json!({"upstreamNameservers": format!("[\"{address}\"]")}));
    await_status(&daemon, "www.example.com A", "NOERROR");
    let stub = json!({"stubDomains": json!({"corp.local": [address]}).to_string()});
    api::put_config_map(&api, &stub);
    await_status(&daemon, "www.corp.local A", "NOERROR");
    await_status(&daemon, "www.example.com A", "SERVFAIL");
    api::put_config_map(&api, &json!({"stubDomains": "[malformed"}));
    api::put_config_map(&api, &stub);
    await_status(&daemon, "www.corp.local A", "NOERROR");
    api.delete(CONFIG_MAPS, "kube-dns");
    await_status(&daemon, "www.corp.local A", "SERVFAIL");
}

#[test]
fn what_a_person_names_upstreams_for_is_asked_of_them() {
    // As an e2e test of Kubernetes asks: "should forward PTR records lookup to upstream nameserver".
    let upstream = ScriptedUpstream::start(|asked| {
        let (mut reply, name) = (asked.reply(ResponseCode::NoError), asked.message.queries[0].name.clone());
        let pointer = RData::PTR(PTR(Name::from_ascii("my.test.").unwrap()));
        reply.answers = vec![Record::from_rdata(name, 60, pointer)];
        Some(reply)
    });
    let api = api::start();
    let daemon = Daemon::start(&api.address().to_string(), "0");
    await_status(&daemon, "-x 192.0.2.123", "SERVFAIL"); // That of the flag does not answer.
    let upstreams = format!("[\"{}\"]", upstream.address);
    api::put_config_map(&api, &json!({"upstreamNameservers": upstreams}));
    await_status(&daemon, "-x 192.0.2.124", "NOERROR");
    assert!(dig("127.0.0.1", daemon.dns.port(), "-x 192.0.2.123").contains("PTR\tmy.test."));
}

#[test]
fn it_ends_in_order_when_told_to() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start(NOBODY, "0");
        daemon.signal(signal);
        assert!(daemon.wait().success(), "{signal}");
    }
}

#[test]
fn in_lameduck_it_answers_but_is_not_ready() {
    let mut daemon = Daemon::start(NOBODY, "600");
    daemon.signal(Signal::SIGTERM);
    eventually("it says that it leaves", || daemon.get(1, "/ready").contains("shutting down"));
    assert!(daemon.get(0, "/health").starts_with("HTTP/1.1 200"));
    assert!(dig("127.0.0.1", daemon.dns.port(), "cluster.local SOA").contains("status: SERVFAIL"));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success(), "a second signal does not wait");
}

#[test]
fn signals_that_do_not_mean_to_end_it_do_not() {
    let mut daemon = Daemon::start(NOBODY, "0");
    for signal in [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGALRM] {
        daemon.signal(signal);
    }
    daemon.await_log("SIGHUP changes nothing");
    assert!(daemon.get(0, "/health").starts_with("HTTP/1.1 200"));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
}

#[test]
fn what_cannot_be_had_is_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_directory, kubeconfig) = kubeconfig(NOBODY);
    let kubeconfig = kubeconfig.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--listen", &address], &["cannot listen on", &address, "another program listens there"]),
        (&["--listen", "192.0.2.1:53"], &["192.0.2.1:53", "no such address"]),
        (
            &["--listen", "127.0.0.1:5399", "--upstream", "127.0.0.1:5399"],
            &["127.0.0.1:5399 is this server itself"],
        ),
        (
            &["--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--kubeconfig", "/does/not/exist"],
            &["/does/not/exist", "--kubeconfig"],
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--upstream",
                "127.0.0.1:1",
                "--kubeconfig",
                kubeconfig,
                "--health-bind-address",
                &address,
            ],
            &["--health-bind-address", &address, "another program listens there"],
        ),
    ];
    for (arguments, expected) in cases {
        let text = failure(arguments);
        assert!(expected.iter().all(|part| text.contains(part)), "{expected:?} in {text}");
        // Beside the log of what was under way by then.
        let told: Vec<&str> = text.lines().filter(|line| line.starts_with("weft-dns: ")).collect();
        assert_eq!(told.len(), 1, "{text}");
        assert_eq!(told[0].matches("os error").count() / 2, 0, "the cause is told once: {text}");
    }
}

#[test]
fn a_flag_that_does_not_exist_is_named() {
    assert!(failure(&["--no-such-flag"]).contains("--no-such-flag"));
}
