//! From a client's message to the reply, in stages: [`parse`], [`classify`], [`resolve`] and [`encode`]. The
//! full lane ([`handler`]) goes through all of them; the fast lane ([`fast_lane`]) through the same but for
//! upstreams, with borrowed data. No socket is touched here.

pub mod blocks;
pub mod classify;
pub mod cname_chain;
pub mod encode;
pub(crate) mod fair_share;
pub mod fast_lane;
pub mod handler;
pub mod parse;
pub mod query_log;
pub mod rate_limit;
mod resolve;
pub mod rules;
pub mod search_list;
mod search_walk;
mod upstream_answer;
