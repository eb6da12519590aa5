//! Who may ask the agents of a cluster.

use serde_json::json;
use weft_types::well_known::access::{ACCOUNT, AUDIENCE, HEADER, NAMESPACE};

use crate::lab::{Lab, Outcome, equal, holds};

/// The code and the body of what node1's agent answers, with what the token is told to be.
fn asked(lab: &Lab, path: &str, token: Option<&str>) -> Result<(String, String), String> {
    let header = format!("{HEADER}: {}", token.unwrap_or_default());
    let url = format!("http://127.0.0.1:10246{path}");
    let line = ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", "-H", &header, &url];
    let text = lab.on_node("node1", &line)?;
    let (body, code) = text.rsplit_once('\n').ok_or("curl printed nothing")?;
    Ok((code.to_owned(), body.to_owned()))
}

/// A token of an account, from the API server.
fn token(lab: &Lab, namespace: &str, account: &str, audience: &str) -> Result<String, String> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let answer = lab.api()?.create(&path, &json!({"spec": {"audiences": [audience]}}))?;
    answer["status"]["token"].as_str().map(str::to_owned).ok_or(answer.to_string())
}

pub(crate) fn only_with_a_token_made_for_agents(lab: &Lab) -> Outcome {
    let api = lab.api()?;
    for path in ["/healthz", "/metrics"] {
        equal(path, asked(lab, path, None)?.0.as_str(), "200")?;
    }
    let (code, text) = asked(lab, "/facts", None)?;
    equal("without a token", code.as_str(), "401")?;
    holds(
        "without a token",
        &text,
        "no token in the header weft-token: what is needed is one of ServiceAccount",
    )?;
    let reader = token(lab, NAMESPACE, ACCOUNT, AUDIENCE)?;
    let (code, text) = asked(lab, "/facts", Some(&reader))?;
    equal("with a token", code.as_str(), "200")?;
    holds("the facts", &text, "\"isReady\":true")?;
    let foreign = token(lab, NAMESPACE, ACCOUNT, "https://kubernetes.default.svc")?;
    equal("a token for the API server", asked(lab, "/facts", Some(&foreign))?.0.as_str(), "401")?;
    // The API server's proxy passes the header on, and adds nothing that would let anybody in.
    let by_proxy = api.get("/api/v1/nodes/node1:10246/proxy/facts");
    holds("by the proxy", &by_proxy.err().unwrap_or_default(), "401")?;

    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    api.create(accounts, &json!({"metadata": {"name": "other"}}))?;
    let other = token(lab, "default", "other", AUDIENCE)?;
    let (code, text) = asked(lab, "/facts", Some(&other))?;
    api.delete(&format!("{accounts}/other"))?;
    equal("another's token", code.as_str(), "403")?;
    holds("another's token", &text, "the token is of system:serviceaccount:default:other")
}
