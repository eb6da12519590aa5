//! A Corefile as this server's configuration: the flags that it sets, where names are asked, and the rules of
//! its server blocks. All of it is a function of the Corefile and of the texts of the files that it names. Pure.

mod log_rules;
mod routes;
mod rules;
mod settings;

pub use log_rules::log_rules;
pub use routes::settings;
pub use rules::rules;
pub use settings::{Given, Local, Site, apply, fixed_part, sites};
