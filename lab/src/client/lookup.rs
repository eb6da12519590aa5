//! DNS lookups as a program in this place would make them: /etc/resolv.conf with its search path and ndots.

use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RecordType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a lookup brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The records of the answer, as `name type data`, in the order of the answer.
    pub records: Vec<String>,
    /// Why there are none.
    pub error: Option<String>,
}

/// Looks up records of a type.
pub async fn lookup(name: &str, record_type: &str) -> Result<Found> {
    let record_type: RecordType = record_type.to_uppercase().parse().map_err(|error| Error::Invalid {
        what: "record type",
        value: record_type.to_owned(),
        reason: format!("{error}"),
    })?;
    Ok(match resolver()?.lookup(name, record_type).await {
        Ok(found) => Found {
            records: found
                .answers()
                .iter()
                .map(|record| format!("{} {} {}", record.name, record.record_type(), record.data))
                .collect(),
            error: None,
        },
        Err(error) => Found { records: Vec::new(), error: Some(error.to_string()) },
    })
}

/// The first address of a name.
pub async fn address(name: &str) -> Result<IpAddr> {
    let failed = |reason: String| Error::Probe { what: format!("resolve {name}"), reason };
    let found = resolver()?.lookup_ip(name).await.map_err(|error| failed(error.to_string()))?;
    found.iter().next().ok_or_else(|| failed("no address".to_owned()))
}

fn resolver() -> Result<TokioResolver> {
    let failed = |reason: String| Error::Probe { what: "read /etc/resolv.conf".to_owned(), reason };
    let builder = TokioResolver::builder_tokio().map_err(|error| failed(error.to_string()))?;
    builder.build().map_err(|error| failed(error.to_string()))
}
