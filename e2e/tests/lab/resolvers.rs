//! What programs in pods find through the resolvers of their C libraries: glibc's, musl's and that of a
//! static busybox, with the resolv.conf that a kubelet writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::case::{Case, Peer, echo};
use crate::dns::inside;
use crate::lab::{Lab, Outcome, equal, holds, poll, succeed};

const NAMESPACE: &str = "dns-resolvers";

/// Builds the program that asks its C library, once with each: glibc, as of the host, and musl, linked
/// statically.
pub(crate) fn build(folder: &Path) -> Result<[PathBuf; 2], String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/resolve.c");
    let built = |compiler: &str, flags: &[&str], libraries: &[&str]| {
        let program = folder.join(compiler);
        let mut command = Command::new(compiler);
        command.args(flags).arg("-o").arg(&program).arg(source).args(libraries);
        succeed(command).map(|_| program)
    };
    Ok([built("cc", &[], &["-lresolv"])?, built("musl-gcc", &["-static"], &[])?])
}

/// What a program prints in the pod, each line once and in order; waits until that is as expected.
pub(crate) fn prints(case: &Case, pod: &Peer, line: &[&str], expected: &[String]) -> Outcome {
    let mut expected = expected.to_vec();
    expected.sort();
    poll(&format!("{line:?}"), || {
        let text = inside(case, pod, line)?;
        // `getent ahosts` says more on each line; addresses come first.
        let first = |line: &str| match line.contains("STREAM") {
            true => line.split(' ').next().map(str::to_owned),
            false => Some(line.to_owned()).filter(|line| !line.contains("DGRAM") && !line.contains("RAW")),
        };
        let mut seen: Vec<String> = text.lines().filter_map(first).collect();
        seen.sort();
        seen.dedup();
        equal("lines", seen, expected.clone())
    })
}

pub(crate) fn glibc_musl_and_busybox(lab: &Lab) -> Outcome {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let [glibc, musl] = build(folder.path())?;
    let libraries = [glibc.to_str().unwrap_or_default(), musl.to_str().unwrap_or_default()];
    let case = Case::new(lab, NAMESPACE)?;
    let web = case.service("web", json!({}))?;
    case.service("db", json!({"clusterIP": "None"}))?;
    let alias = json!({"type": "ExternalName", "externalName": format!("web.{NAMESPACE}.svc.cluster.local")});
    case.create("services", &json!({"metadata": {"name": "alias"}, "spec": alias}))?;
    let named = json!({"hostname": "first", "subdomain": "db"});
    let [pod, first] = case.run([echo("client").app("client"), echo("one").spec(named)])?;

    let texts = |ips: &[std::net::IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let full = |name: &str| format!("{name}.{NAMESPACE}.svc.cluster.local");
    for (name, expected) in
        [("web", texts(&web.ips)), ("alias", texts(&web.ips)), ("first.db", texts(&first.ips))]
    {
        // From the short name to the one that ends at the root.
        for name in [
            name.to_owned(),
            format!("{name}.{NAMESPACE}"),
            format!("{name}.{NAMESPACE}.svc"),
            full(name),
            full(name) + ".",
        ] {
            prints(&case, &pod, &["getent", "ahosts", &name], &expected)?;
            for library in libraries {
                prints(&case, &pod, &[library, "addresses", &name], &expected)?;
            }
        }
    }
    for library in libraries {
        prints(&case, &pod, &[library, "addresses", "kubernetes.default"], &["10.96.0.1".to_owned()])?;
        for name in ["nothing", "web.nowhere", "first.web", "nothing.example.test"] {
            let found = inside(&case, &pod, &[library, "addresses", name]);
            holds("a name that does not exist", &found.err().unwrap_or_default(), name)?;
        }
        let of_web = [format!("0 100 80 {}", full("web"))];
        prints(&case, &pod, &[library, "services", &full("_http._tcp.web")], &of_web)?;
        let of_db = [format!("0 100 8080 {}", full("first.db"))];
        prints(&case, &pod, &[library, "services", &full("_http._tcp.db")], &of_db)?;
    }
    // musl searches addresses only, not records.
    prints(
        &case,
        &pod,
        &[libraries[0], "services", "_http._tcp.web"],
        &[format!("0 100 80 {}", full("web"))],
    )?;

    for address in &web.ips {
        holds(
            "busybox",
            &inside(&case, &pod, &["/bin/busybox", "nslookup", &full("web")])?,
            &address.to_string(),
        )?;
    }
    Ok(())
}
