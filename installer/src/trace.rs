//! `weft trace`: a packet's way from one end of a connection to the other, from node to node, and the
//! answer's way back; where it ends, why, and what mends it. Nothing is sent: each node's agent says what its
//! kernel would do, and is asked through the API server, so that it works from anywhere.

mod cause;
mod error;
mod name;
mod question;
mod report;
#[cfg(test)]
mod tests;
mod tracer;
mod way;
mod world;

use clap::Args;

pub use self::error::Error;
use self::question::{Party, Question};
pub use self::report::{Outcome, Report};
use self::tracer::Tracer;
use self::world::{World, pairs};
use crate::cluster::{Cluster, Connection, ENDPOINT_SLICE, NODE, POD, SERVICE};
use crate::preflight::Output;

/// A connection to be followed.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Who begins the connection and who is to answer: each NAMESPACE/POD, svc/NAMESPACE/SERVICE, node/NODE or
    /// an address; the second also a name, as the pod resolves it. As in `shop/web -> db.shop:5432/tcp`.
    /// Without a port it is about ping; without a protocol (/udp, /sctp) about TCP.
    #[arg(value_name = "FROM TO[:PORT][/PROTOCOL]", required = true, num_args = 1..)]
    pub words: Vec<String>,
    /// The node at which a packet from outside of the cluster comes in, where its destination does not say so:
    /// of a load balancer's address.
    #[arg(long, value_name = "NODE")]
    pub at: Option<String>,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Follows the connection. Must be called within a runtime.
///
/// # Errors
/// Where the question cannot be read, its ends are not there, or the API server cannot be asked. A node that
/// does not answer is part of the answer.
pub async fn run(options: &Options) -> Result<Report, Error> {
    let question = Question::parse(&options.words).map_err(Error::Question)?;
    let cluster = Cluster::connect(&options.connection).await?;
    let world = World {
        nodes: cluster.list(NODE, None, "").await?,
        pods: cluster.list(POD, None, "").await?,
        services: cluster.list(SERVICE, None, "").await?,
        slices: cluster.list(ENDPOINT_SLICE, None, "").await?,
    };
    let from = world.site(&question.from).map_err(Error::Question)?;
    let (to, resolved) = match &question.to {
        Party::Name(name) => match name::resolve(&options.connection, &question.from, name).await? {
            Ok((to, resolved)) => (to, Some(resolved)),
            Err(path) => return Ok(Report { paths: vec![*path] }),
        },
        party => (world.site(party).map_err(Error::Question)?, None),
    };
    let tracer = Tracer { cluster: &cluster, world: &world, question: &question, at: options.at.as_deref() };
    let mut paths = Vec::new();
    for pair in pairs(&from, &to) {
        for mut path in tracer.pair(&from, &to, pair).await? {
            path.resolved.clone_from(&resolved);
            paths.push(path);
        }
    }
    match paths.is_empty() {
        true => Err(Error::Question(format!(
            "{} and {} have no address family in common",
            question.from, question.to
        ))),
        false => Ok(Report { paths }),
    }
}
