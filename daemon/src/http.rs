//! HTTP for probes, scrapers and people. What is answered there is each daemon's own.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::info;

use crate::Error;
use crate::process::with_process;

/// The type that Prometheus expects of figures (OpenMetrics 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many connections may wait to be taken, as tokio has it.
const BACKLOG: i32 = 1024;

/// `/metrics`: what `text` gives, which is OpenMetrics text, and what the process tells of itself.
pub fn open_metrics<T: Future<Output = String> + Send>(
    text: impl Fn() -> T + Clone + Send + Sync + 'static,
) -> Router {
    let answer = move || async move { ([(CONTENT_TYPE, OPEN_METRICS)], with_process(text().await)) };
    Router::new().route("/metrics", get(answer))
}

/// Listens at an address. One that is unspecified stands for all of both families, as it does for the daemons
/// that people know such flags from: kubelets and load balancers ask by either.
///
/// # Errors
/// The system's, where the address cannot be had.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return TcpListener::bind(address).await;
    }
    match of_both_families(address.port()) {
        // Where there is no IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(address).await,
        listener => TcpListener::from_std(listener?),
    }
}

fn of_both_families(port: u16) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds `address`, which `flag` named, and serves `router` there until that task is aborted. Handlers find
/// the client's address as axum's `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// Which address cannot be had, and what to do.
pub async fn serve(
    flag: &'static str,
    address: SocketAddr,
    router: Router,
) -> Result<JoinHandle<io::Result<()>>, Error> {
    let failed = |source| Error::Serve { flag, address, source };
    let listener = listen(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    info!(address = %bound, flag, "serving HTTP");
    // It ends only with an error of the listener, after which nobody could be told.
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    Ok(tokio::spawn(async move { axum::serve(listener, service).await }))
}
