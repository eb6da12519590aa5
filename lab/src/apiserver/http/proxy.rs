//! The subresource `proxy` of nodes and pods: GET from a server there, as
//! `/api/v1/nodes/node1:8181/proxy/ready`. Where that is, the objects say; the request leaves from the node
//! itself, as it does where a control plane can reach all pods.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Door;
use super::path::Place;
use crate::apiserver::error::{ApiError, Result};
use crate::client::http::fetch;
use crate::netns;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers one request with what the server behind it answers.
pub(super) async fn serve(door: &Door, parts: &Parts, place: Place) -> Result<Response> {
    let Place { mut target, beyond, .. } = place;
    if parts.method != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    let (name, port) = target.name.split_once(':').unwrap_or((&target.name, "80"));
    let port = port.parse().map_err(|_| ApiError::BadRequest(format!("{port:?} is no port")))?;
    target.name = name.to_owned();
    let object = door.cluster.read(|registry| registry.get(&target).cloned())?;
    let (node, address) = location(target.resource.plural, &object).ok_or(ApiError::NoSuchPath)?;
    let lab = door.lab.as_ref().ok_or_else(|| unreachable("there are no nodes here".to_owned()))?;
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let (namespace, host, path) = (lab.node(node), target.name, beyond + &query);
    let server = SocketAddr::new(address, port);
    let headers = passed_on(&parts.headers);
    let ask = move || netns::run(&namespace, move || Ok(fetch(server, &host, &path, &headers, PATIENCE)));
    let asked = tokio::task::spawn_blocking(ask).await.map_err(|error| unreachable(error.to_string()))?;
    let (status, body) = asked.map_err(|error| unreachable(error.to_string()))?.map_err(unreachable)?;
    Ok((StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), body).into_response())
}

/// The headers that go on to the server behind: not those that are about this connection (RFC 9110 section
/// 7.6.1), nor the client's credentials, which a real API server keeps to itself, too.
fn passed_on(headers: &HeaderMap) -> Vec<(String, String)> {
    let own = [
        header::HOST,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::TE,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::ACCEPT_ENCODING,
    ];
    let others = headers.iter().filter(|(name, _)| !own.contains(name));
    others.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}

/// The node that it is on, and its address.
fn location<'a>(plural: &str, object: &'a Value) -> Option<(&'a str, IpAddr)> {
    let (node, address) = match plural {
        "pods" => (&object["spec"]["nodeName"], &object["status"]["podIP"]),
        "nodes" => {
            let addresses = object["status"]["addresses"].as_array().into_iter().flatten();
            let internal = addresses.into_iter().find(|address| address["type"] == "InternalIP")?;
            (&object["metadata"]["name"], &internal["address"])
        }
        _ => return None,
    };
    Some((node.as_str()?, address.as_str()?.parse().ok()?))
}

fn unreachable(reason: String) -> ApiError {
    ApiError::Unreachable(reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_and_pods_are_where_their_status_says() {
        let pod = json!({"spec": {"nodeName": "node2"}, "status": {"podIP": "10.244.1.7"}});
        assert_eq!(location("pods", &pod), Some(("node2", "10.244.1.7".parse().unwrap())));
        let addresses = json!([{"type": "Hostname", "address": "node1"}, {"type": "InternalIP", "address": "fd00:30::11"}]);
        let node = json!({"metadata": {"name": "node1"}, "status": {"addresses": addresses}});
        assert_eq!(location("nodes", &node), Some(("node1", "fd00:30::11".parse().unwrap())));
        assert_eq!(location("services", &node), None);
        assert_eq!(location("pods", &json!({"spec": {"nodeName": "node2"}})), None, "it has no address yet");
    }
}
