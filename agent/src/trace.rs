//! `/trace`: a packet's way through this node, by what its kernel holds. Nothing is written, no packet is
//! sent, and none is looked into. Each question is answered by a thread of its own, beside the rounds.

mod listeners;
mod machine;
mod pods;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use weft_nftables as nft;
use weft_nftables::evaluator::Ruleset;
use weft_trace::{NodeTrace, Question, follow};

use self::machine::Host;
use crate::Result;
use crate::attachments::PluginPaths;

/// How many questions are answered at a time: each reads all tables of the node.
const AT_A_TIME: usize = 2;
/// The names of Weft's own tables begin so, and all of their elements are read.
const OWN: &str = "weft";

/// Where the pods of this machine are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// What the plugin made.
    pub(crate) paths: PluginPaths,
    /// The proc(5) of the machine's first PID namespace.
    pub(crate) proc: PathBuf,
}

/// The endpoint, on the node of that name.
pub(crate) fn endpoint(node: String, place: Place) -> Router {
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let serve =
        move |Query(question): Query<Question>| serve(turns.clone(), node.clone(), place.clone(), question);
    Router::new().route("/trace", get(serve))
}

async fn serve(turns: Arc<Semaphore>, node: String, place: Place, question: Question) -> Response {
    if let Some(problem) = problem(&question) {
        return (StatusCode::BAD_REQUEST, problem).into_response();
    }
    let Ok(_turn) = turns.try_acquire() else {
        return (StatusCode::TOO_MANY_REQUESTS, "the agent answers others; ask again\n").into_response();
    };
    let refused =
        |problem: String| (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response();
    match tokio::task::spawn_blocking(move || trace(&node, place, &question)).await {
        Ok(Ok(trace)) => match serde_json::to_string(&trace) {
            Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => refused(error.to_string()),
        },
        Ok(Err(error)) => refused(error.to_string()),
        Err(error) => refused(error.to_string()),
    }
}

/// Why there is no such packet.
fn problem(question: &Question) -> Option<String> {
    let is_v4 = |address: IpAddr| address.is_ipv4();
    let becomes = [question.source_becomes, question.destination_becomes].into_iter().flatten();
    let others = question.via.into_iter().chain(question.endpoint.map(|to| to.ip()));
    let mut all = others.chain(becomes.map(|to| to.ip())).chain([question.destination]);
    let differs = all.any(|address| is_v4(address) != is_v4(question.source));
    // A tunnel's ends may be of another family.
    (differs && question.tunnel.is_none()).then(|| "the addresses are not of one family\n".to_owned())
}

fn trace(node: &str, place: Place, question: &Question) -> Result<NodeTrace> {
    let tables = nft::Client::open()?.all(|table| table.starts_with(OWN))?;
    let mut host = Host::open(place)?;
    Ok(follow(question, node, &Ruleset::new(tables), &mut host))
}

#[cfg(test)]
mod tests {
    use weft_trace::{Entry, Tuple};

    use super::*;

    #[test]
    fn a_question_is_what_its_url_says() {
        let address = |text: &str| text.parse().unwrap();
        let packet = Tuple {
            source: address("fd00::1"),
            source_port: Some(49152),
            destination: address("fd00::2"),
            port: Some(80),
        };
        let whole = Question {
            via: Some(address("172.30.0.12")),
            tunnel: Some("weft-vxlan".to_owned()),
            answers: Some(true),
            destination_becomes: Some("[fd00::3]:80".parse().unwrap()),
            ..Question::new(Entry::Link, packet, 6)
        };
        for question in [whole.clone(), Question::new(Entry::Pod, Tuple { port: None, ..packet }, 58)] {
            let uri = format!("/trace?{}", question.query()).parse().unwrap();
            assert_eq!(Query::<Question>::try_from_uri(&uri).unwrap().0, question);
            assert_eq!(problem(&question), None);
        }
        let mixed = Question { tunnel: None, ..whole };
        assert!(problem(&mixed).unwrap().contains("not of one family"));
    }
}
