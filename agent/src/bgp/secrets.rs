//! The Secrets that BGPPeers take passwords from: each is asked for by its name, beside the daemon's rounds, when
//! it is wanted and again every so often. So agents need no more than `get` of Secrets in the namespaces that the
//! installation names. What a Secret says is read in `plan::passwords`.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use weft_types::NamespacedName;

use crate::bgp::plan::passwords::{Known, Passwords, read};
use crate::subsystem::Wake;

/// How often Secrets are read again: after so long a new password is used.
const AGAIN: Duration = Duration::from_secs(10);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is wanted and known of Secrets.
#[derive(Debug)]
pub(crate) struct Secrets {
    wanted: watch::Sender<BTreeSet<NamespacedName>>,
    known: watch::Receiver<Passwords>,
}

impl Secrets {
    /// Starts in the background, for as long as the runtime lasts. Asks for a round when something else is known.
    pub(crate) fn start(client: kube::Client, wake: Wake) -> Secrets {
        let (wanted, asked) = watch::channel(BTreeSet::new());
        let (told, known) = watch::channel(Passwords::new());
        tokio::spawn(run(client, asked, told, wake));
        Secrets { wanted, known }
    }

    /// Has these read, and no others.
    pub(crate) fn want(&self, names: BTreeSet<NamespacedName>) {
        self.wanted.send_if_modified(|wanted| {
            let is_other = *wanted != names;
            if is_other {
                *wanted = names;
            }
            is_other
        });
    }

    /// What is known by now.
    pub(crate) fn known(&self) -> Passwords {
        self.known.borrow().clone()
    }
}

async fn run(
    client: kube::Client,
    mut asked: watch::Receiver<BTreeSet<NamespacedName>>,
    told: watch::Sender<Passwords>,
    wake: Wake,
) {
    loop {
        let wanted = asked.borrow_and_update().clone();
        let before = told.borrow().clone();
        let mut known = Passwords::new();
        for name in wanted {
            let answer = ask(&client, &name).await;
            known.insert(name.clone(), Known::after(before.get(&name), answer));
        }
        let is_idle = known.is_empty();
        if known != before {
            told.send_replace(known);
            wake.wake();
        }
        tokio::select! {
            changed = asked.changed() => if changed.is_err() { return },
            () = async { if is_idle { pending().await } else { sleep(AGAIN).await } } => {}
        }
    }
}

async fn ask(
    client: &kube::Client,
    name: &NamespacedName,
) -> Result<weft_announce::bgp::peer::Password, String> {
    let path = format!("/api/v1/namespaces/{}/secrets/{}", name.namespace, name.name);
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match timeout(PATIENCE, client.request_text(request)).await {
        Ok(Ok(text)) => read(&text).map_err(|problem| format!("the Secret {name}: {problem}")),
        Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::NOT_FOUND.as_u16() => {
            Err(format!("there is no Secret {name}: create it, of the type kubernetes.io/basic-auth"))
        }
        Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::FORBIDDEN.as_u16() => Err(format!(
            "agents may not read the Secret {name}: weft install --bgp-secrets-namespace {} lets them",
            name.namespace
        )),
        Ok(Err(error)) => Err(format!("cannot read the Secret {name}: {error}")),
        Err(_) => Err(format!("cannot read the Secret {name}: no answer within {} s", PATIENCE.as_secs())),
    }
}
