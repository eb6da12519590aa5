//! Who may ask the agent about its node. Whoever reaches the port gets `/healthz`, `/readyz` and `/metrics`;
//! all else is for those who show a token of the ServiceAccount `kube-system/weft-reader`, made for agents
//! alone. So RBAC decides who may ask, by who may make such tokens, and a token that is read on its way is of
//! no use at the API server. Who is let in is decided in `gate`.

mod gate;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use weft_types::well_known::access::{AUDIENCE, HEADER};

use self::gate::{Gate, Refusal, Step};

/// How many questions to the API server there are at a time.
const AT_A_TIME: usize = 4;

/// Lets only those in to these routes who may ask. `review` asks the API server whose a token is.
pub(crate) fn guarded<F, R>(routes: Router, review: F) -> Router
where
    F: Fn(String) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Option<String>, String>> + Send + 'static,
{
    let gate = Arc::new(Mutex::new(Gate::new(Instant::now())));
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    routes.route_layer(from_fn(move |request: Request, next: Next| {
        let token = request.headers().get(HEADER).map(|token| token.as_bytes().to_vec());
        let asked = (token, client(&request));
        let (gate, turns, review) = (gate.clone(), turns.clone(), review.clone());
        async move {
            match admit(&gate, &turns, review, asked).await {
                Ok(()) => next.run(request).await,
                Err(refusal) => response(&refusal),
            }
        }
    }))
}

async fn admit<F, R>(
    gate: &Mutex<Gate>,
    turns: &Semaphore,
    review: F,
    (token, client): (Option<Vec<u8>>, IpAddr),
) -> Result<(), Refusal>
where
    F: Fn(String) -> R,
    R: Future<Output = Result<Option<String>, String>>,
{
    let lock = || gate.lock().unwrap_or_else(PoisonError::into_inner);
    let mut step = lock().step(token.as_deref(), client, Instant::now());
    if let Step::Review(token) = step {
        let Ok(_turn) = turns.try_acquire() else { return Err(Refusal::TooMany) };
        let user = review(token.clone()).await.map_err(Refusal::Unverified)?;
        step = lock().reviewed(token, user, Instant::now());
    }
    match step {
        Step::Answer => Ok(()),
        Step::Refuse(refusal) => Err(refusal),
        Step::Review(_) => Err(Refusal::TooMany),
    }
}

fn client(request: &Request) -> IpAddr {
    let connection = request.extensions().get::<ConnectInfo<SocketAddr>>();
    connection.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(address)| address.ip())
}

fn response(refusal: &Refusal) -> Response {
    let code = StatusCode::from_u16(refusal.code()).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = (code, refusal.text()).into_response();
    let (name, value) = match code {
        // RFC 9110 section 11.6.1: what would be accepted.
        StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, format!("{HEADER} realm=\"{AUDIENCE}\"")),
        StatusCode::TOO_MANY_REQUESTS => (header::RETRY_AFTER, "1".to_owned()),
        _ => return response,
    };
    response.headers_mut().extend(HeaderValue::try_from(value).map(|value| (name, value)));
    response
}
