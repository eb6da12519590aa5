//! DNS over TCP (RFC 7766): several questions on a connection, answered as soon as each is ready, in any order.
//! Everything that a client can hold on to is bounded: connections, questions in flight, time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handler::{Handler, Step};
use crate::message::Transport;

/// The most connections at a time. More wait in the kernel until one closes.
const MOST_CONNECTIONS: usize = 1024;
/// The most questions of one connection that may wait for their answers.
const MOST_IN_FLIGHT: usize = 64;
/// How long a client may take to send one whole question, or to take one whole answer. Idle connections are
/// closed after it (RFC 7766 section 6.2.3).
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers connections until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    handler: Arc<Handler>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async { (places.clone().acquire_owned().await, listener.accept().await) } => accepted,
        };
        match accepted {
            (place, Ok((stream, client))) => {
                let connection = converse(stream, client, handler.clone(), tasks.clone(), stop.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept connections");
                // Out of file descriptors, most likely: asking again at once would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One connection, until the client closes it, is idle for too long or breaks the framing.
async fn converse(
    stream: TcpStream,
    client: SocketAddr,
    handler: Arc<Handler>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    // Answers are small, and nobody should wait for the next one.
    let _ = stream.set_nodelay(true);
    let (mut reader, writer) = stream.into_split();
    let (replies, to_write) = mpsc::channel(MOST_IN_FLIGHT);
    tasks.spawn(write(writer, to_write));
    let in_flight = Arc::new(Semaphore::new(MOST_IN_FLIGHT));
    loop {
        let question = tokio::select! {
            () = stop.cancelled() => return,
            question = timeout(PATIENCE, read(&mut reader)) => question,
        };
        let Ok(Ok(question)) = question else { return };
        let reply = match handler.handle(&question, client.ip(), Transport::Tcp) {
            Step::Silence => return,
            Step::Reply(reply) => reply,
            Step::Wait(waiting) => {
                let (Ok(place), replies) = (in_flight.clone().acquire_owned().await, replies.clone()) else {
                    return;
                };
                tasks.spawn(async move {
                    // The client may be gone by now.
                    let _ = replies.send(waiting.finish().await).await;
                    drop(place);
                });
                continue;
            }
        };
        if replies.send(reply).await.is_err() {
            return;
        }
    }
}

async fn read(reader: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut question = vec![0; usize::from(length)];
    reader.read_exact(&mut question).await?;
    Ok(question)
}

/// Writes answers as they come, until all who make some are done.
async fn write(mut writer: OwnedWriteHalf, mut replies: mpsc::Receiver<Vec<u8>>) {
    while let Some(reply) = replies.recv().await {
        // No reply is longer: its encoder knows the limit.
        let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
        // One write, one segment: some clients take a length that comes alone for a broken answer.
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        if !matches!(timeout(PATIENCE, writer.write_all(&framed)).await, Ok(Ok(()))) {
            return;
        }
    }
}
