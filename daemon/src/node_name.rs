//! By which name the API server knows this machine.

use crate::Error;

/// The name of this machine's Node: what `given` says, else the host's name as the kubelet takes it, in lower
/// case.
///
/// # Errors
/// Where nothing is given and the host has no usable name.
pub fn node_name(given: Option<&str>) -> Result<String, Error> {
    if let Some(name) = given.filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    let refuse = |problem| Error::NodeName { problem };
    let name = nix::unistd::gethostname().map_err(|errno| refuse(errno.to_string()))?;
    let name = name.into_string().map_err(|name| refuse(format!("{name:?} is no text")))?;
    match name.trim() {
        "" => Err(refuse("it is empty".to_owned())),
        name => Ok(name.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_name_goes_before_the_hosts() {
        assert_eq!(node_name(Some("Node1")).unwrap(), "Node1");
        let host = node_name(None).unwrap();
        assert_eq!(node_name(Some("")).unwrap(), host, "a flag left empty names nothing");
        assert_eq!(host, host.to_lowercase());
    }
}
