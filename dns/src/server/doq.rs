//! DNS over QUIC (RFC 9250): each stream carries one query and its answer, in the framing of TCP.

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::EdnsCode;
use quinn::{Connection, ReadToEndError, RecvStream, SendStream, VarInt};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::server::session::Session;
use crate::server::tcp::framed;

/// Codes of errors (RFC 9250 section 4.3).
const NO_ERROR: VarInt = VarInt::from_u32(0);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
/// What comes before a message.
const LENGTH: usize = 2;
/// The longest query with its length.
const LONGEST: usize = LENGTH + u16::MAX as usize;

/// One connection, until the client closes it, asks nothing for too long or breaks the protocol. Queries that
/// were taken are answered. Why to close it then.
pub(super) async fn serve_connection(connection: &Connection, session: Session) -> VarInt {
    let (client, streams) = (connection.remote_address().ip(), TaskTracker::new());
    loop {
        let stream = tokio::select! {
            () = session.stop.cancelled() => break,
            stream = timeout(session.limits.timeout, connection.accept_bi()) => stream,
        };
        let Ok(Ok((send, receive))) = stream else { break };
        let (connection, session) = (connection.clone(), session.clone());
        streams.spawn(async move {
            if let Err(code) = answer(send, receive, client, &session).await {
                // Fatal for the connection (RFC 9250 section 4.3.3).
                connection.close(code, b"");
            }
        });
    }
    streams.close();
    streams.wait().await;
    NO_ERROR
}

/// Answers the query of a stream. Fails where the client breaks the protocol.
async fn answer(
    mut send: SendStream,
    mut receive: RecvStream,
    client: IpAddr,
    session: &Session,
) -> Result<(), VarInt> {
    let limit = session.limits.timeout;
    let received = match timeout(limit, receive.read_to_end(LONGEST)).await {
        Ok(Ok(received)) => received,
        // The client does not want to know any more, or is gone.
        Ok(Err(ReadToEndError::Read(_))) => return Ok(()),
        Ok(Err(ReadToEndError::TooLong)) | Err(_) => return Err(PROTOCOL_ERROR),
    };
    let question = question(&received).ok_or(PROTOCOL_ERROR)?;
    let reply = session.answer(question, client).await.ok_or(PROTOCOL_ERROR)?;
    // It may be gone by now, or take too long.
    if let Ok(Ok(())) = timeout(limit, send.write_all(&framed(&reply))).await {
        let _ = send.finish();
    }
    Ok(())
}

/// The one message of a stream. None where there is more or less, an ID (RFC 9250 section 4.2.1), or the
/// option that only TCP has (section 5.5.2).
fn question(received: &[u8]) -> Option<&[u8]> {
    let (length, message) = received.split_first_chunk::<LENGTH>()?;
    let is_whole = message.len() == usize::from(u16::from_be_bytes(*length));
    let has_option = || {
        let edns = Message::from_vec(message).ok().and_then(|message| message.edns);
        edns.is_some_and(|edns| edns.option(EdnsCode::Keepalive).is_some())
    };
    (is_whole && message.starts_with(&[0, 0]) && !has_option()).then_some(message)
}
