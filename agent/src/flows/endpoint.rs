//! `/flows`: what is remembered of flows, from a place on. Who asks may wait for news; as the answer says
//! where to go on, nothing is told twice, and what was forgotten meanwhile is counted.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use weft_netlink::sysctl;

use super::memory::{Cursor, Wanted};
use super::options::Mode;
use super::shared::SharedFlows;

/// How many may ask at a time.
const AT_A_TIME: usize = 8;
/// How many events an answer has at the most: about 1 MB.
const MOST: usize = 4096;
/// How many seconds a question may wait for news.
const LONGEST: u64 = 20;
/// How long news is gathered, so that no answer is about one connection of many.
const GATHER: Duration = Duration::from_millis(100);
/// The setting by which the kernel counts what connections carry.
const ACCOUNTING: &str = "net/netfilter/nf_conntrack_acct";

/// As it is asked: `from=CURSOR&verdict=denied&wait=10`, each of which may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    from: Option<String>,
    verdict: Option<String>,
    wait: u64,
}

/// The endpoint.
pub(crate) fn endpoint(flows: SharedFlows) -> Router {
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let serve = move |Query(parameters): Query<Parameters>| serve(flows.clone(), turns.clone(), parameters);
    Router::new().route("/flows", get(serve))
}

async fn serve(flows: SharedFlows, turns: Arc<Semaphore>, parameters: Parameters) -> Response {
    if flows.settings().mode == Mode::Never {
        let why = "this agent does not look at flows (--flows=never)\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let (from, wanted) = match parameters.read() {
        Ok(read) => read,
        Err(problem) => return (StatusCode::BAD_REQUEST, problem).into_response(),
    };
    let Ok(_turn) = turns.try_acquire() else {
        return (StatusCode::TOO_MANY_REQUESTS, "the agent answers others; ask again\n").into_response();
    };
    let wait = Duration::from_secs(parameters.wait.min(LONGEST));
    flows.want(wait);
    let (deadline, mut news) = (Instant::now() + wait, flows.news());
    let mut page = flows.read(from, wanted, MOST);
    while page.flows.is_empty() && Instant::now() < deadline {
        if timeout_at(deadline, news.changed()).await.is_ok() {
            sleep_until((Instant::now() + GATHER).min(deadline)).await;
        }
        news.mark_unchanged();
        page = flows.read(from, wanted, MOST);
    }
    page.counts_traffic = sysctl::read(ACCOUNTING).is_ok_and(|value| value == "1");
    match serde_json::to_string(&page) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

impl Parameters {
    fn read(&self) -> Result<(Option<Cursor>, Wanted), String> {
        let from = self.from.as_deref().filter(|from| !from.is_empty()).map(str::parse).transpose()?;
        let wanted = match self.verdict.as_deref() {
            None | Some("") => Wanted::All,
            Some("allowed") => Wanted::Allowed,
            Some("denied") => Wanted::Denied,
            Some(other) => return Err(format!("verdict={other}: expected allowed or denied\n")),
        };
        Ok((from, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_what_its_url_says() {
        let read = |query: &str| {
            let uri = format!("/flows?{query}").parse().unwrap();
            Query::<Parameters>::try_from_uri(&uri)
                .map_err(|error| error.to_string())
                .and_then(|it| it.0.read())
        };
        assert_eq!(read(""), Ok((None, Wanted::All)));
        assert_eq!(read("from=&verdict="), Ok((None, Wanted::All)));
        assert_eq!(
            read("from=7-1-2-3&verdict=denied&wait=10").unwrap(),
            ("7-1-2-3".parse().ok(), Wanted::Denied)
        );
        assert!(read("verdict=DENIED").unwrap_err().contains("expected allowed or denied"));
        assert!(read("from=7").unwrap_err().contains("cursor") && read("wait=long").is_err());
        assert!(read("wait=-1").is_err());
    }
}
