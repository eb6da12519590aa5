//! What carries out the plans of Services in the kernel.

pub mod nftables;
