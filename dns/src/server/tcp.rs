//! DNS over TCP (RFC 7766), and over TLS (RFC 7858), which is the same on another stream: several queries on
//! a connection, answered as soon as each is ready, in any order. Everything that a client can hold on to is
//! bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::pipeline::handler::Step;
use crate::server::session::Session;

impl Session {
    /// One connection, until the client closes it, is idle for too long or breaks the framing. Queries that
    /// were read are answered, also where the client closed its side (RFC 7766 section 6.2.4).
    pub(super) async fn serve(self, stream: impl AsyncRead + AsyncWrite, client: SocketAddr) {
        let (reader, writer) = io::split(stream);
        let (replies, to_write) = mpsc::channel(1);
        let limit = self.limits.timeout;
        tokio::join!(self.take_questions(reader, client, replies), write(writer, to_write, limit));
    }

    async fn take_questions(
        self,
        mut reader: impl AsyncRead + Unpin,
        client: SocketAddr,
        replies: mpsc::Sender<Vec<u8>>,
    ) {
        let in_flight = Arc::new(Semaphore::new(self.limits.in_flight));
        loop {
            let question = tokio::select! {
                () = self.stop.cancelled() => return,
                question = timeout(self.limits.timeout, read(&mut reader)) => question,
            };
            let Ok(Ok(question)) = question else { return };
            // No answer is made before there is room for it: who reads none costs no memory.
            let Ok(room) = replies.reserve().await else { return };
            match self.handler.handle(&question, client.ip(), self.transport) {
                Step::Drop => return,
                Step::Reply(reply) => room.send(reply),
                Step::Pending(waiting) => {
                    drop(room);
                    let Ok(place) = in_flight.clone().acquire_owned().await else { return };
                    let replies = replies.clone();
                    self.tasks.spawn(async move {
                        // The client may be gone by now.
                        let _ = replies.send(waiting.finish().await).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut question = Vec::new();
    // Memory is taken as bytes come, not as they are announced.
    reader.take(u64::from(length)).read_to_end(&mut question).await?;
    match question.len() == usize::from(length) {
        true => Ok(question),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes answers as they come, until all who make some are done.
async fn write(mut writer: impl AsyncWrite + Unpin, mut replies: mpsc::Receiver<Vec<u8>>, limit: Duration) {
    while let Some(reply) = replies.recv().await {
        // One write, one segment: some clients take a length that comes alone for a broken answer.
        let framed = framed(&reply);
        let written = async {
            writer.write_all(&framed).await?;
            writer.flush().await
        };
        if !matches!(timeout(limit, written).await, Ok(Ok(()))) {
            return;
        }
    }
    // A client behind TLS is told that this is the end, and no cut.
    let _ = timeout(limit, writer.shutdown()).await;
}

/// A reply with its length before it.
pub(super) fn framed(reply: &[u8]) -> Vec<u8> {
    // No reply is longer: its encoder knows the limit.
    let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], reply].concat()
}
