//! The lab's API server, spoken to in plain HTTP and JSON: what scenarios create, read, change and delete.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A client of one API server.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    address: SocketAddr,
}

/// The patches that [`Api::patch`] sends.
const MERGE: &str = "application/merge-patch+json";

impl Api {
    /// The API server on that port of the host's 127.0.0.1.
    pub(crate) fn new(port: u16) -> Api {
        Api { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) }
    }

    /// Reads an object or a list.
    pub(crate) fn get(&self, path: &str) -> Result<Value, String> {
        self.call("GET", path, "", None)
    }

    /// Creates an object in a collection.
    pub(crate) fn create(&self, path: &str, object: &Value) -> Result<Value, String> {
        self.call("POST", path, "application/json", Some(object))
    }

    /// Merges a patch into an object (RFC 7386).
    pub(crate) fn patch(&self, path: &str, patch: &Value) -> Result<Value, String> {
        self.call("PATCH", path, MERGE, Some(patch))
    }

    /// Deletes an object, or a collection.
    pub(crate) fn delete(&self, path: &str) -> Result<Value, String> {
        self.call("DELETE", path, "", None)
    }

    fn call(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<Value, String> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: lab\r\nAccept: application/json\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{text}",
            text.len()
        );
        let answer = self.exchange(&request).map_err(|error| format!("{method} {path}: {error}"))?;
        let (head, body) =
            answer.split_once("\r\n\r\n").ok_or_else(|| format!("{method} {path}: {answer:?}"))?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        let value: Value = serde_json::from_str(body).unwrap_or_default();
        match status.starts_with('2') {
            true => Ok(value),
            false => Err(format!("{method} {path}: {status} {}", value["message"])),
        }
    }

    fn exchange(&self, request: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// Where the objects of a kind in a namespace are.
pub(crate) fn collection(namespace: &str, plural: &str) -> String {
    let group = match plural {
        "deployments" | "statefulsets" | "daemonsets" => "apis/apps/v1",
        "endpointslices" => "apis/discovery.k8s.io/v1",
        "networkpolicies" => "apis/networking.k8s.io/v1",
        "clusternetworkpolicies" => "apis/policy.networking.k8s.io/v1alpha2",
        _ => "api/v1",
    };
    match namespace {
        "" => format!("/{group}/{plural}"),
        namespace => format!("/{group}/namespaces/{namespace}/{plural}"),
    }
}
