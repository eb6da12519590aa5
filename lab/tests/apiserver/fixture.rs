//! A server of its own for every test, with a kube client and the means to run `kubectl` against it.

use std::net::{SocketAddr, TcpListener};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use kube::{Client, Config as ClientConfig};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use weft_lab::apiserver::{ApiServer, Config};

/// How long a test waits for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running server and its clients.
pub(crate) struct Fixture {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    home: TempDir,
}

/// Starts a server on a free port of loopback.
pub(crate) fn start(config: Config) -> Fixture {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let server = ApiServer::start(config, vec![listener]).expect("the server starts");
    let address = server.addresses()[0];
    let url = format!("http://{address}");
    let home = tempfile::tempdir().expect("a temporary folder");
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: lab, clusters: [{{name: lab, cluster: {{server: '{url}'}}}}], \
         contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}], users: [{{name: lab, user: {{}}}}]}}"
    );
    std::fs::write(home.path().join("kubeconfig"), kubeconfig).expect("the kubeconfig is written");
    let client = Client::try_from(ClientConfig::new(url.parse().expect("a URL"))).expect("a client");
    Fixture { server, client, address, home }
}

impl Fixture {
    /// A `kubectl` command of this cluster, with a home of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
            .env("HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs `kubectl` with that input until it ends.
    pub(crate) async fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .spawn()
            .expect("kubectl runs: this test needs it on PATH (Debian: apt-get install kubernetes-client)");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).await.expect("kubectl reads its input");
        drop(stdin);
        let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        ended.unwrap_or_else(|_| panic!("kubectl {arguments:?} did not end")).expect("kubectl's output")
    }

    /// What `kubectl` prints; it must succeed.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, "").await
    }

    /// What `kubectl` prints for that input; it must succeed.
    pub(crate) async fn kubectl_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What `kubectl` complains of; it must fail.
    pub(crate) async fn kubectl_fails(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Repeats a command until what it prints satisfies the condition.
    pub(crate) async fn kubectl_until(&self, arguments: &[&str], is_met: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let text = self.kubectl(arguments).await;
            if is_met(&text) {
                return text;
            }
            assert!(begin.elapsed() < DEADLINE, "kubectl {arguments:?} still prints:\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The words of the first line that begins with that one.
pub(crate) fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no row {name} in:\n{table}")).split_whitespace().collect()
}
