//! A node's plan as commands and files that would bring it about: for `--dry-run` and for golden tests.

use std::fmt;

use crate::cni_config::plan::FILE;
use crate::masquerade::rules;
use crate::plan::NodePlan;
use crate::sysctls::plan::Sysctl;

impl fmt::Display for NodePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for notice in &self.notices {
            writeln!(f, "# {notice}")?;
        }
        for Sysctl { name, value } in &self.sysctls {
            writeln!(f, "sysctl -w {name}={value}")?;
        }
        if let Some(overlay) = &self.routing.overlay {
            write!(f, "{overlay}")?;
        }
        if let Some(wireguard) = &self.routing.wireguard {
            write!(f, "{wireguard}")?;
        }
        for route in &self.routing.routes {
            writeln!(f, "ip route add {route}")?;
        }
        for table in rules::tables(&self.masquerade) {
            write!(f, "{table}")?;
        }
        match self.cni_config_text() {
            Some(text) => write!(f, "# {FILE}\n{text}"),
            None => Ok(()),
        }
    }
}
