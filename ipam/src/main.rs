//! `weft-ipam`, the CNI IPAM plugin as a program. Installed under the name `host-local` it stands in for the
//! reference plugin.

use std::process::ExitCode;

use weft_cni_spec::program;
use weft_ipam::Ipam;

fn main() -> ExitCode {
    program::run(&Ipam, "weft-ipam")
}
