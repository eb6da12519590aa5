//! One request to the API server, up to the head of its answer.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;

use super::{Encoding, Frames, Status};
use crate::error::chain;

/// The most bytes of a page: several times what as many objects come to as are asked for.
const LONGEST_LIST: usize = 256 << 20;
/// The most bytes of a refusal.
const LONGEST_STATUS: usize = 1 << 20;

/// An answer that does what was asked for.
pub(crate) struct Answer {
    pub(crate) encoding: Encoding,
    body: Body,
}

/// Why there is no such answer.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// The server says no, with this code.
    Server { code: u16, message: String },
    /// The server was not reached, or its answer broke off.
    Connection(String),
}

/// Asks the API server.
pub(crate) async fn ask(
    client: &Client,
    mut request: Request<Vec<u8>>,
    accept: &'static str,
) -> Result<Answer, Refusal> {
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
    let answer = client.send(request.map(Body::from)).await;
    let (head, body) = answer.map_err(|error| Refusal::Connection(chain(&error)))?.into_parts();
    let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let encoding = Encoding::of(media_type.unwrap_or_default());
    if head.status.is_success() {
        return Ok(Answer { encoding, body });
    }
    // That a refusal cannot be read is not worth a word of its own.
    let body = collected(body, LONGEST_STATUS).await.unwrap_or_default();
    let code = head.status.as_u16();
    let status = Status::read(encoding, &body);
    let message = status.message().map_or_else(|| format!("HTTP status {}", head.status), str::to_owned);
    Err(Refusal::Server { code, message })
}

impl Answer {
    /// All of the answer.
    pub(crate) async fn whole(self) -> Result<Vec<u8>, Refusal> {
        collected(self.body, LONGEST_LIST).await.map_err(Refusal::Connection)
    }

    /// The answer as it comes, frame by frame.
    pub(crate) fn frames(self) -> Frames {
        Frames::new(self.body, self.encoding)
    }
}

async fn collected(body: Body, limit: usize) -> Result<Vec<u8>, String> {
    let body = Limited::new(body, limit).collect().await;
    Ok(body.map_err(|error| chain(&*error))?.to_bytes().into())
}
