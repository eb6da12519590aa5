//! What is done with a query before the cluster is looked at, where somebody wants that: it may be rewritten,
//! and answered from a hosts file or a template. In the order of CoreDNS' plugins: rewrite, template, hosts.
//! Pure.

mod asked;
pub mod hosts;
pub mod rewrite;
pub mod template;
mod text;

use hickory_proto::rr::RecordType;

use crate::wire::name::QueryName;
use crate::wire::reply::Reply;
pub(crate) use asked::{Asked, failure};
use hosts::Hosts;
use rewrite::{Rewrites, Rewritten};
use template::Templates;
use text::Text;

/// The rules of one block.
#[derive(Debug, Default)]
pub struct Rules {
    /// What is rewritten.
    pub rewrites: Rewrites,
    /// Answers made of the query.
    pub templates: Templates,
    /// Names and addresses.
    pub hosts: Option<Hosts>,
}

impl Rules {
    /// Whether there is nothing in them.
    pub fn is_empty(&self) -> bool {
        self.rewrites.is_empty() && self.templates.is_empty() && self.hosts.is_none()
    }

    /// Whether any of them may be about a query. Allocates nothing.
    pub(crate) fn touches(&self, name: &QueryName, record_type: RecordType) -> bool {
        let by_text = || {
            let text = Text::of(name);
            self.rewrites.touches(text.as_str(), record_type)
                || self.templates.touches(text.as_str(), record_type)
        };
        let has_text = !self.rewrites.is_empty() || !self.templates.is_empty();
        self.hosts.as_ref().is_some_and(|hosts| hosts.touches(name)) || (has_text && by_text())
    }

    /// What a query becomes, and how its answer is led back. None where it stays as it is.
    pub(crate) fn rewrite(&self, name: &QueryName, record_type: RecordType) -> Option<Rewritten> {
        if self.rewrites.is_empty() {
            return None;
        }
        self.rewrites.apply(Text::of(name).as_str(), record_type)
    }

    /// What the rules themselves answer.
    pub(crate) fn answer(&self, asked: Asked<'_>) -> Option<Reply> {
        let by_template = || self.templates.answer(Text::of(asked.name).as_str(), asked);
        let made = if self.templates.is_empty() { None } else { by_template() };
        made.or_else(|| self.hosts.as_ref()?.answer(asked))
    }
}
