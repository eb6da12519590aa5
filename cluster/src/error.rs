//! What can go wrong at the edge of the cluster, in words that name the object and the remedy.

use std::path::PathBuf;

use thiserror::Error;

/// An error of this crate, its causes told in its own text. Errors of a running watch are not among them:
/// those are logged and tried again.
#[derive(Debug, Error)]
pub enum Error {
    /// The kubeconfig that was named cannot be used.
    #[error("cannot use the kubeconfig {path}: {problem}; name a readable kubeconfig with --kubeconfig", path = path.display())]
    Kubeconfig {
        /// The file that was named.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No kubeconfig was named, and the process does not run in a pod.
    #[error("no --kubeconfig was given and this is no pod of a cluster ({problem}); give --kubeconfig FILE")]
    NotInCluster {
        /// What is missing of a pod's environment.
        problem: String,
    },
    /// The configuration was read, but no client can be made from it.
    #[error(
        "cannot make a client for the API server {server}: {problem}; check its certificates and credentials"
    )]
    Client {
        /// The URL of the API server.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// A manifest cannot be read.
    #[error("cannot read the manifest {path}: {problem}", path = path.display())]
    ReadManifest {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: std::io::Error,
    },
    /// A manifest is neither YAML nor JSON.
    #[error("the manifest {path} is not valid YAML or JSON: {problem}", path = path.display())]
    ParseManifest {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
}

/// An error with all its causes in one line. A cause that its parent's text already holds is not repeated,
/// nor is what a parser draws below its first line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let first_line = |error: &dyn std::error::Error| {
        error.to_string().lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
    };
    let mut text = first_line(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = first_line(error);
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    #[error("{text}")]
    struct Nested {
        text: &'static str,
        source: Option<Box<Nested>>,
    }

    fn nested(text: &'static str, source: Option<Nested>) -> Nested {
        Nested { text, source: source.map(Box::new) }
    }

    #[test]
    fn causes_are_told_once() {
        let error =
            nested("cannot list: refused", Some(nested("refused", Some(nested("os error 111", None)))));
        assert_eq!(chain(&error), "cannot list: refused: os error 111");
    }
}
