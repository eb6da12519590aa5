//! From a client's message to the reply. No socket is touched here.

pub mod classify;
pub mod cname_chain;
pub(crate) mod fair_share;
pub mod fast_lane;
pub mod handler;
pub mod query_log;
pub mod rate_limit;
pub mod records;
pub mod search_list;
