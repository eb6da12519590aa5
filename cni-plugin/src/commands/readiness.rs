//! Whether the machine is prepared for a network's containers, as far as whoever wrote the configuration
//! says. The agent writes it; by hand one leaves these options out.

use weft_cni_spec::Boot;
use weft_cni_spec::{BridgeOptions, Invocation, decode};
use weft_netlink::sysctl;

use crate::{Error, HostState, Options, Result, Sysctl};

/// Fails where the configuration says that the machine is not prepared, or was in another boot than the
/// present one: then forwarding, routes and rules are gone, though the file is still there.
pub(crate) fn check(invocation: &Invocation, present: &Boot) -> Result<()> {
    let config: BridgeOptions = decode(&invocation.json)?;
    match problem(&config, present) {
        Some(problem) => Err(Error::NotReady { network: invocation.network.to_string(), problem }),
        None => Ok(()),
    }
}

/// Fails where the host's kernel is set so that ADD could not make the bridge a gateway.
pub(crate) fn check_settings(options: &Options, state: &HostState) -> Result<()> {
    let has = |ipv4: bool| options.gateway && state.gateways.iter().any(|gateway| gateway.is_ipv4() == ipv4);
    if has(true) {
        Sysctl::new("net/ipv4/ip_forward", "1").check_writable()?;
    }
    if has(false) {
        // An interface that is yet to be made gets the default.
        let key = |name: &str| format!("net/ipv6/conf/{name}/disable_ipv6");
        let read = |key: &String| sysctl::read(key).ok();
        let (own, default) = (key(options.gateway_link.as_str()), key("default"));
        let found = read(&own).map(|value| (own, value)).or_else(|| Some((default.clone(), read(&default)?)));
        match found {
            None => return Err(Error::NoIpv6 { why: "this kernel has no IPv6".into() }),
            Some((key, value)) if value != "0" => {
                return Err(Error::NoIpv6 { why: format!("/proc/sys/{key} is {value}") });
            }
            Some(_) => Sysctl::new("net/ipv6/conf/all/forwarding", "1").check_writable()?,
        }
    }
    Ok(())
}

fn problem(config: &BridgeOptions, present: &Boot) -> Option<String> {
    let is_over = |boot: &String| Boot::of_text(boot).is_over(present);
    let unprepared = || "it has not been prepared since it was started".to_owned();
    config
        .unavailable
        .clone()
        .or_else(|| config.boot.as_ref().filter(|boot| is_over(boot)).map(|_| unprepared()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_ready_unless_the_configuration_says_otherwise() {
        let present = Boot::of_text("ab12");
        let problem = |boot: Option<&str>, unavailable: Option<&str>| {
            let (boot, unavailable) = (boot.map(str::to_owned), unavailable.map(str::to_owned));
            problem(&BridgeOptions { boot, unavailable, ..BridgeOptions::default() }, &present)
        };
        assert_eq!(problem(None, None), None, "a configuration by hand");
        assert_eq!(problem(Some("ab12"), None), None);
        assert!(problem(Some("cd34"), None).unwrap().contains("since it was started"));
        assert_eq!(problem(Some("ab12"), Some("no pod CIDR")).unwrap(), "no pod CIDR");
    }
}
