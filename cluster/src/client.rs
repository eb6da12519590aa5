//! A client for the API server, from a kubeconfig or from a pod's environment. What is asked of it is not
//! here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::json;
use tracing::info;

use crate::error::chain;
use crate::{Error, Result};

/// How long a connection to the API server may take. kube's own 30 s would delay every retry by as much.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for the API server that `kubeconfig` names, or for the one whose pod this process runs in.
///
/// No request is made: an API server that is away is the watch's business. Must be called within a tokio
/// runtime.
pub async fn client(kubeconfig: Option<&Path>) -> Result<kube::Client> {
    let access =
        kubeconfig.map_or(Access::InCluster, |file| Access::File { file: file.to_owned(), context: None });
    client_by(&access).await
}

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// By the environment and the service account of a pod.
    InCluster,
    /// By a kubeconfig.
    File {
        /// The file.
        file: PathBuf,
        /// The context; the file's current one where none is named.
        context: Option<String>,
    },
    /// At a URL.
    At {
        /// The URL.
        url: String,
        /// The files of the client's certificate, its key, and the server's authority.
        tls: Option<[PathBuf; 3]>,
    },
}

/// A client for the API server that is reached so.
///
/// # Errors
/// As those of [`client`].
pub async fn client_by(access: &Access) -> Result<kube::Client> {
    let mut config = match access {
        Access::File { file, context } => from_file(file, context.clone()).await?,
        Access::At { url, tls } => at(url, tls.as_ref()).await?,
        Access::InCluster => {
            Config::incluster().map_err(|error| Error::NotInCluster { problem: chain(&error) })?
        }
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // The watch tries again by itself, and says so; kube would do it in silence.
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    info!(%server, "using the API server");
    kube::Client::try_from(config).map_err(|error| Error::Client { server, problem: chain(&error) })
}

/// As if a kubeconfig said so.
async fn at(url: &str, tls: Option<&[PathBuf; 3]>) -> Result<Config> {
    let path = |number: usize| tls.map(|files| files[number].display().to_string());
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": url, "certificate-authority": path(2)}}],
        "users": [{"name": "it", "user": {"client-certificate": path(0), "client-key": path(1)}}],
    });
    let refuse = |problem| Error::Kubeconfig { path: url.into(), problem };
    let kubeconfig: Kubeconfig =
        serde_json::from_value(kubeconfig).map_err(|error| refuse(error.to_string()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.map_err(|error| refuse(chain(&error)))
}

async fn from_file(path: &Path, context: Option<String>) -> Result<Config> {
    let refuse = |problem| Error::Kubeconfig { path: path.to_owned(), problem };
    // Said in our own words: kube's name the file once more.
    File::open(path).map_err(|error| refuse(error.to_string()))?;
    let failed = |error: KubeconfigError| refuse(chain(&error));
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn error_of(text: &str) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let error = client(Some(file.path())).await.err().expect("must be refused").to_string();
        error.replace(&file.path().display().to_string(), "FILE")
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = client(Some(Path::new("/no/such/kubeconfig"))).await.err().unwrap().to_string();
        assert!(error.starts_with("cannot use the kubeconfig /no/such/kubeconfig: No such file"), "{error}");
        assert!(error.contains("--kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn a_malformed_kubeconfig_is_named() {
        assert_eq!(error_of("clusters: [").await.lines().count(), 1, "one line, for logs");
        assert!(error_of("clusters: 5").await.starts_with("cannot use the kubeconfig FILE: "));
        assert!(error_of("apiVersion: v1\nkind: Config\n").await.contains("context"));
    }

    #[tokio::test]
    async fn a_kubeconfig_gives_a_client() {
        let text = "
            apiVersion: v1
            kind: Config
            current-context: weft
            clusters: [{name: weft, cluster: {server: 'http://127.0.0.1:1'}}]
            users: [{name: weft, user: {}}]
            contexts: [{name: weft, context: {cluster: weft, user: weft}}]";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        assert!(client(Some(file.path())).await.is_ok());
    }
}
