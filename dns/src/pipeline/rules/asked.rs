//! A query as rules see it, and the reply where one of them says that nobody answers it.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};

use crate::wire::extended_error::ExtendedError;
use crate::wire::name::QueryName;
use crate::wire::reply::Reply;

/// A query.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'q> {
    pub(crate) name: &'q QueryName,
    /// As the client spelled it.
    pub(crate) spelled: &'q Name,
    pub(crate) record_type: RecordType,
    pub(crate) client: IpAddr,
}

/// The reply to a query of which a rule says that nobody else answers it.
pub(crate) fn failure(reason: &'static str) -> Reply {
    Reply { extended: Some(ExtendedError::other(reason)), ..Reply::empty(ResponseCode::ServFail) }
}
