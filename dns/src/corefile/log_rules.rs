//! Which answers the query log tells of, as `log` says.

use weft_corefile::{AnswerClass, Corefile};

use crate::pipeline::query_log::{Class, LogRule};
use crate::pipeline::rules::template::wire_domain;

/// Those of all server blocks; none where nobody wants a log.
pub fn log_rules(corefile: &Corefile) -> Vec<LogRule> {
    let mut rules = Vec::new();
    for server in &corefile.servers {
        for log in &server.logs {
            let classes = log.classes.iter().map(|class| match class {
                AnswerClass::Success => Class::Success,
                AnswerClass::Denial => Class::Denial,
                AnswerClass::Error => Class::Error,
            });
            let classes: Vec<Class> = classes.collect();
            for key in &server.keys {
                // Of the zone and of the block: what is below both.
                let deeper = if key.domain.covers(&log.zone) { &log.zone } else { &key.domain };
                if log.zone.covers(deeper) {
                    rules.push(LogRule { domain: wire_domain(deeper), classes: classes.clone() });
                }
            }
        }
    }
    rules
}
