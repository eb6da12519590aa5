//! The kubeconfigs of a lab: text and client. The API server asks for no credentials.

use kube::{Client, Config};

use crate::error::{Error, Result};

/// A kubeconfig for the API server at that address (`host:port`).
pub fn text(address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: weft-lab\n  cluster:\n    server: http://{address}\n\
         users:\n- name: weft-lab\n  user: {{}}\ncontexts:\n- name: weft-lab\n  context:\n    cluster: weft-lab\n\
         \x20   user: weft-lab\n    namespace: default\ncurrent-context: weft-lab\n"
    )
}

/// A client for the API server on that port of the host's 127.0.0.1.
pub fn client(port: u16) -> Result<Client> {
    let address = format!("http://127.0.0.1:{port}");
    let uri = address.parse().map_err(|error| Error::Invalid {
        what: "address of the API server",
        value: address.clone(),
        reason: format!("{error}"),
    })?;
    Client::try_from(Config::new(uri)).map_err(Error::api("reach", address))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_text_is_a_kubeconfig() {
        let text = super::text("172.30.0.1:6443");
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let server = parsed.clusters[0].cluster.as_ref().unwrap().server.clone();
        assert_eq!(server.as_deref(), Some("http://172.30.0.1:6443"));
        assert_eq!(parsed.current_context.as_deref(), Some("weft-lab"));
    }
}
