//! Passwords of BGP peers that stand in Secrets: what a Secret says, and what is known of those that are wanted.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use weft_announce::bgp::peer::Password;
use weft_types::{BgpPeer, LabelSelector, NamespacedName, Node, PeerPassword, Snapshot};

/// The type of Secrets that hold a password (core/v1 `SecretTypeBasicAuth`).
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
/// The longest key that the kernel signs segments with (`TCP_MD5SIG_MAXKEYLEN`).
const LONGEST: usize = 80;

/// What is known of the Secrets that are wanted.
pub(crate) type Passwords = BTreeMap<NamespacedName, Known>;

/// What is known of a Secret that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The password that it said last.
    pub(crate) password: Option<Password>,
    /// Why it does not say one now.
    pub(crate) problem: Option<String>,
}

/// core/v1 Secret, as far as it matters.
#[derive(Deserialize)]
struct Secret {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    data: Option<BTreeMap<String, Option<String>>>,
}

/// The Secret of a peer, which is of the peer's own namespace.
pub(super) fn secret_of(peer: &BgpPeer) -> Option<NamespacedName> {
    match &peer.password {
        PeerPassword::Secret(name) => Some(NamespacedName::new(peer.key.namespace.clone(), &**name)),
        PeerPassword::None | PeerPassword::Here(_) => None,
    }
}

/// The Secrets that this node's peers are about.
pub(crate) fn wanted(own: &Node, peers: &Snapshot) -> BTreeSet<NamespacedName> {
    let peers = peers.of::<BgpPeer>().iter();
    let own = peers.filter(|peer| LabelSelector::any_matches(&peer.node_selectors, &own.labels));
    own.filter_map(secret_of).collect()
}

/// The password that a Secret holds, from its JSON.
///
/// # Errors
/// What is wrong with it, in words that never show it.
pub(crate) fn read(text: &str) -> Result<Password, String> {
    let secret: Secret = serde_json::from_str(text).map_err(|_| "it cannot be read".to_owned())?;
    let kind = secret.kind.unwrap_or_default();
    if kind != BASIC_AUTH {
        return Err(format!("it is of type {kind:?}, and not {BASIC_AUTH}"));
    }
    let held = secret.data.unwrap_or_default().remove("password").flatten();
    let bytes = STANDARD.decode(held.ok_or("it has no password")?);
    let bytes = bytes.map_err(|_| "its password is no base64")?;
    match bytes.len() {
        0 => Err("its password is empty".to_owned()),
        1..=LONGEST => {
            String::from_utf8(bytes).map(Password).map_err(|_| "its password is no UTF-8".to_owned())
        }
        length => Err(format!("its password has {length} bytes, of which TCP MD5 takes {LONGEST} at most")),
    }
}

impl Known {
    /// What is known after it was asked for once more. A session goes on with the password of before.
    pub(crate) fn after(before: Option<&Known>, answer: Result<Password, String>) -> Known {
        match answer {
            Ok(password) => Known { password: Some(password), problem: None },
            Err(problem) => {
                Known { password: before.and_then(|before| before.password.clone()), problem: Some(problem) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(kind: &str, password: Option<&str>) -> String {
        json!({"metadata": {"name": "tor"}, "type": kind, "data": {"username": "eA==", "password": password}})
            .to_string()
    }

    #[test]
    fn a_secret_of_the_right_type_holds_a_password() {
        assert_eq!(read(&secret(BASIC_AUTH, Some("c3dvcmRmaXNo"))), Ok(Password("swordfish".to_owned())));
        let longest = STANDARD.encode("x".repeat(LONGEST));
        assert_eq!(read(&secret(BASIC_AUTH, Some(&longest))).unwrap().0.len(), LONGEST);
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_told_without_it() {
        let long = STANDARD.encode("x".repeat(LONGEST + 1));
        for (text, words) in [
            (
                secret("Opaque", Some("c3dvcmRmaXNo")),
                "it is of type \"Opaque\", and not kubernetes.io/basic-auth",
            ),
            (secret(BASIC_AUTH, None), "it has no password"),
            (secret(BASIC_AUTH, Some("")), "its password is empty"),
            (secret(BASIC_AUTH, Some("swordfish!")), "its password is no base64"),
            (secret(BASIC_AUTH, Some("/w==")), "its password is no UTF-8"),
            (secret(BASIC_AUTH, Some(&long)), "its password has 81 bytes, of which TCP MD5 takes 80 at most"),
            ("null".to_owned(), "it cannot be read"),
            ("{}".to_owned(), "it is of type \"\", and not kubernetes.io/basic-auth"),
            (json!({"type": BASIC_AUTH, "data": null}).to_string(), "it has no password"),
            ("swordfish".to_owned(), "it cannot be read"),
        ] {
            assert_eq!(read(&text), Err(words.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_password_that_was_read_stays_while_its_secret_cannot_be_read() {
        let gone = Err("there is none".to_owned());
        let first = Known::after(None, gone.clone());
        assert_eq!((&first.password, first.problem.as_deref()), (&None, Some("there is none")));
        let known = Known::after(Some(&first), Ok(Password("a".to_owned())));
        assert_eq!(known.problem, None);
        let after = Known::after(Some(&known), gone);
        assert_eq!((after.password, after.problem.is_some()), (known.password, true));
    }
}
