//! `weft dns check-corefile`: whether weft-dns does all that a Corefile says, before it is asked to. The Corefile
//! is a file, or that of a ConfigMap as k3s, RKE2, kubeadm and kind have it.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use thiserror::Error;
use weft_corefile::disk::Disk;
use weft_corefile::{Corefile, Problems, Surroundings};

use crate::cluster::{CONFIG_MAP, Cluster, Connection, NAMESPACE};

/// The key of the ConfigMap that is the Corefile.
const KEY: &str = "Corefile";
/// Where weft-dns has the ConfigMap, and where what it imports is looked for.
const FOLDER: &str = "/etc/coredns/";
/// The ConfigMap that distributions leave to people (k3s, RKE2, AKS), and where weft-dns has it.
pub(crate) const CUSTOM: &str = "coredns-custom";
const CUSTOM_FOLDER: &str = "/etc/coredns/custom/";

/// A Corefile to be checked.
#[derive(Args, Clone, Debug)]
pub struct CheckCorefile {
    /// The Corefile; - is standard input. What it imports is looked for beside it.
    #[arg(value_name = "FILE", required_unless_present = "configmap", conflicts_with = "configmap")]
    pub file: Option<PathBuf>,
    /// The Corefile of this ConfigMap in kube-system, with what it imports from the ConfigMap coredns-custom.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "coredns")]
    pub configmap: Option<String>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// What there is to say of a Corefile.
#[derive(Debug)]
pub struct Verdict {
    name: String,
    outcome: Result<Corefile, Problems>,
}

/// Why nothing can be said of it.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// The file cannot be read.
    #[error("cannot read {name}: {source}")]
    File {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// There is no such ConfigMap, or it has no Corefile.
    #[error(
        "there is no {KEY} in the ConfigMap {NAMESPACE}/{0}; see `kubectl -n {NAMESPACE} get configmaps`"
    )]
    NoCorefile(String),
    /// The API server says no.
    #[error(transparent)]
    Cluster(#[from] crate::Error),
}

impl Verdict {
    /// Whether weft-dns does all of it.
    pub fn is_supported(&self) -> bool {
        self.outcome.is_ok()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(corefile) => {
                for note in &corefile.notes {
                    writeln!(f, "{note}")?;
                }
                let (servers, notes) = (corefile.servers.len(), corefile.notes.len());
                let blocks = if servers == 1 { "server block" } else { "server blocks" };
                let effect = if notes == 0 {
                    String::new()
                } else {
                    format!("; without effect, as said above: {notes}")
                };
                writeln!(f, "{}: supported ({servers} {blocks}{effect})", self.name)
            }
            Err(problems) => {
                writeln!(f, "{problems}")?;
                writeln!(
                    f,
                    "{}: not supported ({}): weft-dns does not start with it",
                    self.name,
                    problems.0.len()
                )
            }
        }
    }
}

/// Checks a Corefile. Must be called within a runtime.
///
/// # Errors
/// It cannot be read.
pub async fn check(question: &CheckCorefile) -> Result<Verdict, Unreadable> {
    if let Some(name) = &question.configmap {
        let cluster = Cluster::connect(&question.connection).await?;
        return check_config_map(&cluster, name).await;
    }
    let path = question.file.as_deref().unwrap_or(Path::new("-"));
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let text = match path == Path::new("-") {
        true => io::read_to_string(io::stdin().lock().take(MOST_BYTES)),
        false => std::fs::read_to_string(path),
    };
    let text = text.map_err(|source| Unreadable::File { name: name.clone(), source })?;
    Ok(Verdict { outcome: weft_corefile::read(&name, &text, &Disk), name })
}

/// Far more than a ConfigMap may hold.
const MOST_BYTES: u64 = 64 << 20;

/// Checks the Corefile of a ConfigMap.
pub(crate) async fn check_config_map(cluster: &Cluster, name: &str) -> Result<Verdict, Unreadable> {
    let own = cluster.get(CONFIG_MAP, NAMESPACE, name).await?;
    let custom = cluster.get(CONFIG_MAP, NAMESPACE, CUSTOM).await?;
    let text = own.as_ref().and_then(|own| own["data"][KEY].as_str());
    let text = text.ok_or_else(|| Unreadable::NoCorefile(name.to_owned()))?;
    let files = ConfigMaps([(CUSTOM_FOLDER, custom.as_ref()), (FOLDER, own.as_ref())]);
    let shown = format!("configmap {NAMESPACE}/{name}");
    Ok(Verdict { outcome: weft_corefile::read(&format!("{FOLDER}{KEY}"), text, &files), name: shown })
}

/// ConfigMaps in their folders. Environment variables are those of a pod, of which nobody here knows.
struct ConfigMaps<'c>([(&'static str, Option<&'c Value>); 2]);

impl Surroundings for ConfigMaps<'_> {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn import(&self, _from: &str, pattern: &str) -> Result<Vec<(String, String)>, String> {
        let whole = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{FOLDER}{pattern}") };
        let (folder, name) = whole.rsplit_once('/').unwrap_or_default();
        let found = self.0.iter().find(|(own, _)| own.trim_end_matches('/') == folder);
        let data = found.and_then(|(_, map)| map.and_then(|map| map["data"].as_object()));
        let matches = |key: &str| match name.split_once('*') {
            Some((start, end)) => {
                key.len() >= start.len() + end.len() && key.starts_with(start) && key.ends_with(end)
            }
            None => key == name,
        };
        let files = data.into_iter().flatten().filter(|(key, _)| matches(key));
        let files: Vec<(String, String)> = files
            .filter_map(|(key, text)| Some((format!("{folder}/{key}"), text.as_str()?.to_owned())))
            .collect();
        match files.is_empty() && !name.contains('*') {
            true => Err(format!("no key {name:?} in a ConfigMap that weft-dns has in {folder}")),
            false => Ok(files),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::scripted::cluster;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        question: CheckCorefile,
    }

    fn run(arguments: &[&str]) -> Result<Verdict, Unreadable> {
        let question = Cli::parse_from([&["weft"], arguments].concat()).question;
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(&question))
    }

    #[test]
    fn a_file_is_told_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Corefile");
        let path = path.to_str().unwrap();
        std::fs::write(path, ". {\n forward . 1.1.1.1\n import more\n}\n").unwrap();
        std::fs::write(folder.path().join("more"), "cache {\n prefetch 5\n}\n").unwrap();
        let verdict = run(&[path]).unwrap();
        assert!(verdict.is_supported());
        let told = verdict.to_string();
        assert!(
            told.contains("/more:2: prefetch has no effect")
                && told.ends_with("supported (1 server block; without effect, as said above: 1)\n"),
            "{told}"
        );
        std::fs::write(path, ". {\n forward . 1.1.1.1\n dnssec\n forward . tls://1.1.1.1\n}\n").unwrap();
        let verdict = run(&[path]).unwrap();
        let told = verdict.to_string();
        assert!(
            !verdict.is_supported() && told.contains("Corefile:3: ") && told.contains("Corefile:4: "),
            "{told}"
        );
        assert!(
            run(&["/nonexistent/Corefile"])
                .unwrap_err()
                .to_string()
                .contains("cannot read /nonexistent/Corefile")
        );
        assert!(Cli::try_parse_from(["weft"]).is_err(), "a Corefile must be named");
    }

    #[test]
    fn a_config_map_is_read_with_what_people_added() {
        let map = |name: &str, data: Value| {
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "kube-system"}, "data": data})
                .to_string()
        };
        let own = ".:53 {\n hosts /etc/coredns/NodeHosts\n import custom/*.override\n forward . /etc/resolv.conf\n}\nimport /etc/coredns/custom/*.server\n";
        let custom = json!({"a.override": "log\n", "b.server": "corp:53 {\n forward . 10.0.0.1\n whoami\n}\n", "README": "{"});
        let kubeconfig = cluster(vec![
            (
                "/api/v1/namespaces/kube-system/configmaps/coredns",
                map("coredns", json!({"Corefile": own, "NodeHosts": ""})),
            ),
            ("/api/v1/namespaces/kube-system/configmaps/coredns-custom", map("coredns-custom", custom)),
        ]);
        let path = kubeconfig.path().to_str().unwrap();
        let told = run(&["--configmap", "--kubeconfig", path]).unwrap().to_string();
        assert_eq!(
            told,
            "/etc/coredns/custom/b.server:3: the plugin whoami is not supported\n\
            configmap kube-system/coredns: not supported (1): weft-dns does not start with it\n"
        );
        let error = run(&["--configmap", "nothing", "--kubeconfig", path]).unwrap_err().to_string();
        assert!(error.contains("no Corefile in the ConfigMap kube-system/nothing"), "{error}");
    }
}
