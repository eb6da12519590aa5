//! Asking nodes' agents, by way of the API server and with a token of `kube-system/weft-reader`: whoever may
//! make one, may ask (agent/src/access). Agents of releases before that answer all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;
use weft_types::well_known::access;
use weft_types::well_known::label::{APP_COMPONENT, APP_NAME};
use weft_types::well_known::port::AGENT;

use super::{Cluster, NAMESPACE, POD, chain, name};

/// For how long a token is good, in seconds: the shortest time that the API server takes.
const LIFE: u32 = 600;
/// How often an agent is asked that answers others, a second apart.
const TRIES: usize = 10;

/// Codes of answers (RFC 9110 section 15).
const UNAUTHORIZED: u16 = 401;
const FORBIDDEN: u16 = 403;
const MISSING: u16 = 404;
const TOO_MANY: u16 = 429;

/// Why an agent did not answer.
struct Refused {
    /// The code of the answer; 0 where there was none.
    code: u16,
    problem: String,
}

impl Cluster {
    /// What the agent of a node answers, of the shape that this release knows.
    ///
    /// # Errors
    /// Why it does not, in words.
    pub(crate) async fn ask_agent<T: DeserializeOwned>(&self, node: &str, path: &str) -> Result<T, String> {
        let text = self.agent_says(node, path).await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: it may be of another version"))
    }

    async fn agent_says(&self, node: &str, path: &str) -> Result<String, String> {
        let token = self.token.get_or_init(|| self.make_token()).await;
        let mut ways = self.ways(node).await;
        for _ in 0..TRIES {
            let refused = match self.get_from(&format!("{}:{AGENT}/proxy{path}", ways[0]), token).await {
                Ok(text) => return Ok(text),
                Err(refused) => refused,
            };
            match refused.code {
                TOO_MANY => sleep(Duration::from_secs(1)).await,
                FORBIDDEN | MISSING if ways.len() > 1 => drop(ways.remove(0)),
                UNAUTHORIZED => return Err(unauthorized(&refused.problem, token)),
                _ => return Err(refused.problem),
            }
        }
        Err("the agent is asked too much; ask again later".to_owned())
    }

    /// The objects by whose subresource `proxy` an agent may be reached, the best first. To get from pods of one
    /// namespace is much less than to get from nodes, which is to get all that their kubelets do. Where agents
    /// are no pods, as in the lab, there is no other way.
    async fn ways(&self, node: &str) -> Vec<String> {
        let agents = self.agents.get_or_init(|| self.agent_pods()).await;
        let by_pod = agents.get(node).map(|pod| format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}"));
        by_pod.into_iter().chain([format!("/api/v1/nodes/{node}")]).collect()
    }

    /// The agents' pods, by their nodes. None where they may not be listed.
    async fn agent_pods(&self) -> BTreeMap<String, String> {
        let labels = format!("{APP_NAME}=weft,{APP_COMPONENT}=agent");
        let pods = self.list(POD, Some(NAMESPACE), &labels).await.unwrap_or_default();
        let running = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let placed = running
            .filter_map(|pod| Some((pod["spec"]["nodeName"].as_str()?.to_owned(), name(pod).to_owned())));
        placed.collect()
    }

    /// A token that agents take, or why there is none.
    async fn make_token(&self) -> Result<String, String> {
        let path =
            format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", access::NAMESPACE, access::ACCOUNT);
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [access::AUDIENCE], "expirationSeconds": LIFE},
        });
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(request.to_string().into_bytes())
            .map_err(|error| error.to_string())?;
        let answer = self.once.request::<Value>(request).await.map_err(|error| in_words(&error))?;
        answer["status"]["token"].as_str().map(str::to_owned).ok_or_else(|| "the answer has none".to_owned())
    }

    async fn get_from(&self, path: &str, token: &Result<String, String>) -> Result<String, Refused> {
        let mut request = http::Request::get(path);
        if let Ok(token) = token {
            request = request.header(access::HEADER, token);
        }
        let request =
            request.body(Vec::new()).map_err(|error| Refused { code: 0, problem: error.to_string() })?;
        let refused = |error: kube::Error| match &error {
            kube::Error::Api(status) => Refused { code: status.code, problem: in_words(&error) },
            _ => Refused { code: 0, problem: format!("cannot get {path}: {}", in_words(&error)) },
        };
        self.once.request_text(request).await.map_err(refused)
    }
}

/// What a server says, without the answer around it.
fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.trim().to_owned(),
        error => chain(error),
    }
}

fn unauthorized(problem: &str, token: &Result<String, String>) -> String {
    match token {
        Ok(_) => problem.to_owned(),
        Err(reason) => format!(
            "{problem}; no token was shown, as none can be made: {reason}; the Role {}/{} allows it, and whoever \
             installed Weft can bind you to it",
            access::NAMESPACE,
            access::ACCOUNT
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Connection;
    use crate::scripted::{self, Answer};

    const TOKEN: &str = "/api/v1/namespaces/kube-system/serviceaccounts/weft-reader/token";
    const PODS: &str = "/api/v1/namespaces/kube-system/pods";
    const BY_POD: &str = "/api/v1/namespaces/kube-system/pods/weft-agent-x:10246/proxy/facts";
    const BY_NODE: &str = "/api/v1/nodes/node1:10246/proxy/facts";

    fn token() -> (&'static str, Answer) {
        (TOKEN, Answer::ok(json!({"status": {"token": "s3cr3t"}}).to_string()))
    }

    fn pods() -> (&'static str, Answer) {
        let pod = json!({"metadata": {"name": "weft-agent-x"}, "spec": {"nodeName": "node1"}});
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod]});
        (PODS, Answer::ok(list.to_string()))
    }

    fn asked(answers: Vec<(&'static str, Answer)>) -> Result<Value, String> {
        let kubeconfig = scripted::server(answers);
        let connection = Connection { kubeconfig: Some(kubeconfig.path().to_owned()), context: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            Cluster::connect(&connection).await.unwrap().ask_agent::<Value>("node1", "/facts").await
        })
    }

    #[test]
    fn agents_are_asked_by_their_pods_with_a_token() {
        let answer = Answer::ok("1".to_owned()).only_with("weft-token: s3cr3t");
        assert_eq!(asked(vec![token(), pods(), (BY_POD, answer)]), Ok(json!(1)));
    }

    #[test]
    fn where_there_is_no_way_by_pods_they_are_asked_by_their_nodes() {
        let by_node = || (BY_NODE, Answer::ok("2".to_owned()));
        for code in [403, 404] {
            let refused = (BY_POD, Answer::refused(code, "no way"));
            assert_eq!(asked(vec![token(), pods(), refused, by_node()]), Ok(json!(2)));
        }
        assert_eq!(asked(vec![token(), by_node()]), Ok(json!(2)), "no pods");
    }

    #[test]
    fn what_an_agent_refuses_is_told_in_its_words() {
        let refused = |code| (BY_NODE, Answer::refused(code, "no token in the header"));
        assert_eq!(asked(vec![token(), refused(401)]), Err("no token in the header".to_owned()));
        assert_eq!(asked(vec![token(), refused(503)]), Err("no token in the header".to_owned()));
        let error = asked(vec![refused(401)]).unwrap_err();
        let reason = "no token in the header; no token was shown, as none can be made: ";
        assert!(error.starts_with(reason) && error.contains("Role kube-system/weft-reader"), "{error}");
        // An agent of an earlier release asks for none.
        assert_eq!(asked(vec![(BY_NODE, Answer::ok("3".to_owned()))]), Ok(json!(3)));
        let error = asked(vec![token(), (BY_NODE, Answer::ok("x".to_owned()))]).unwrap_err();
        assert!(error.contains("may be of another version"), "{error}");
    }

    #[test]
    fn an_agent_that_is_asked_too_much_is_asked_again() {
        let slow = Answer::refused(429, "ask again").once();
        assert_eq!(
            asked(vec![token(), (BY_NODE, slow), (BY_NODE, Answer::ok("4".to_owned()))]),
            Ok(json!(4))
        );
    }
}
