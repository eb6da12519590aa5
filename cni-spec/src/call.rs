//! What a runtime asks of a plugin, from the environment variables that say so (SPEC section 2).

use std::path::PathBuf;

use thiserror::Error;

use crate::{Args, ContainerId, InterfaceName, InvalidArgs, InvalidCniName};

/// A container's interface on a network: what ADD makes and DEL takes away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The container's id.
    pub container: ContainerId,
    /// The interface's name inside the container.
    pub ifname: InterfaceName,
}

/// A command with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// ADD: attach the container's namespace to the network.
    Add {
        /// The attachment to make.
        attachment: Attachment,
        /// The namespace's file.
        netns: PathBuf,
        /// `CNI_ARGS`.
        args: Args,
    },
    /// DEL: detach it.
    Del {
        /// The attachment to take away.
        attachment: Attachment,
        /// The namespace's file; it may be gone, or unknown.
        netns: Option<PathBuf>,
    },
    /// CHECK: see whether everything is as ADD left it.
    Check {
        /// The attachment to look at.
        attachment: Attachment,
        /// The namespace's file.
        netns: PathBuf,
    },
    /// GC: free what belongs to no attachment that the runtime still knows.
    Gc,
    /// STATUS: could an ADD succeed now?
    Status,
    /// VERSION: say which versions of the protocol the plugin speaks.
    Version,
}

/// What is wrong with the environment variables of a call.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidEnvironment {
    /// Variables that the command needs are missing or empty.
    #[error("required env variables [{}] missing", .0.join(", "))]
    Missing(Vec<&'static str>),
    /// The command is none of the protocol's.
    #[error("unknown CNI_COMMAND: {0:?}")]
    UnknownCommand(String),
    /// A variable with a name that the protocol does not allow.
    #[error("{0}: {1}")]
    Name(&'static str, InvalidCniName),
    /// `CNI_ARGS` that cannot be read.
    #[error(transparent)]
    Args(#[from] InvalidArgs),
}

/// Reads variables and remembers which are missing, so that an error can name all of them.
struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    missing: Vec<&'static str>,
}

impl Variables<'_> {
    fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &'static str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.missing.push(name);
            String::new()
        })
    }

    fn complete(&self) -> Result<(), InvalidEnvironment> {
        match self.missing.as_slice() {
            [] => Ok(()),
            missing => Err(InvalidEnvironment::Missing(missing.to_vec())),
        }
    }

    fn attachment(&mut self) -> (String, String) {
        (self.required("CNI_CONTAINERID"), self.required("CNI_IFNAME"))
    }
}

impl Call {
    /// The call that the environment describes; `lookup` gives a variable's value.
    ///
    /// # Errors
    /// Names every missing variable, or the one that is invalid.
    pub fn from_environment(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Call, InvalidEnvironment> {
        let mut variables = Variables { lookup, missing: Vec::new() };
        match variables.required("CNI_COMMAND").as_str() {
            "ADD" => {
                let (ids, netns) = (variables.attachment(), variables.required("CNI_NETNS"));
                variables.complete()?;
                let args = Args::parse(&variables.optional("CNI_ARGS").unwrap_or_default())?;
                Ok(Call::Add { attachment: Attachment::parse(&ids)?, netns: netns.into(), args })
            }
            "DEL" => {
                let ids = variables.attachment();
                variables.complete()?;
                let netns = variables.optional("CNI_NETNS").map(PathBuf::from);
                Ok(Call::Del { attachment: Attachment::parse(&ids)?, netns })
            }
            "CHECK" => {
                let (ids, netns) = (variables.attachment(), variables.required("CNI_NETNS"));
                variables.complete()?;
                Ok(Call::Check { attachment: Attachment::parse(&ids)?, netns: netns.into() })
            }
            "GC" => Ok(Call::Gc),
            "STATUS" => Ok(Call::Status),
            "VERSION" => Ok(Call::Version),
            "" => Err(InvalidEnvironment::Missing(variables.missing)),
            other => Err(InvalidEnvironment::UnknownCommand(other.to_owned())),
        }
    }
}

impl Attachment {
    fn parse((container, ifname): &(String, String)) -> Result<Attachment, InvalidEnvironment> {
        let of = |variable| move |error| InvalidEnvironment::Name(variable, error);
        Ok(Attachment {
            container: container.parse().map_err(of("CNI_CONTAINERID"))?,
            ifname: ifname.parse().map_err(of("CNI_IFNAME"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(variables: &[(&str, &str)]) -> Result<Call, InvalidEnvironment> {
        Call::from_environment(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn attachment() -> Attachment {
        Attachment { container: "c1".parse().unwrap(), ifname: "eth0".parse().unwrap() }
    }

    const IDS: [(&str, &str); 2] = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];

    #[test]
    fn add_needs_everything_and_names_all_that_is_missing() {
        let missing = InvalidEnvironment::Missing(vec!["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"]);
        assert_eq!(call(&[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "")]), Err(missing.clone()));
        assert_eq!(
            missing.to_string(),
            "required env variables [CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS] missing"
        );
        let add = call(&[("CNI_COMMAND", "ADD"), ("CNI_NETNS", "/run/netns/x"), IDS[0], IDS[1]]).unwrap();
        let expected =
            Call::Add { attachment: attachment(), netns: "/run/netns/x".into(), args: Args::default() };
        assert_eq!(add, expected);
    }

    #[test]
    fn del_does_without_a_namespace() {
        let del = call(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", ""), IDS[0], IDS[1]]).unwrap();
        assert_eq!(del, Call::Del { attachment: attachment(), netns: None });
    }

    #[test]
    fn arguments_that_only_add_reads_do_not_stop_a_del() {
        let del = call(&[("CNI_COMMAND", "DEL"), ("CNI_ARGS", "garbage"), IDS[0], IDS[1]]);
        assert!(del.is_ok());
    }

    #[test]
    fn commands_without_parameters_and_unknown_ones() {
        assert_eq!(call(&[("CNI_COMMAND", "VERSION")]), Ok(Call::Version));
        assert_eq!(call(&[("CNI_COMMAND", "GC")]), Ok(Call::Gc));
        assert_eq!(call(&[("CNI_COMMAND", "STATUS")]), Ok(Call::Status));
        assert_eq!(call(&[("CNI_COMMAND", "add")]), Err(InvalidEnvironment::UnknownCommand("add".into())));
        assert_eq!(call(&[]), Err(InvalidEnvironment::Missing(vec!["CNI_COMMAND"])));
    }
}
