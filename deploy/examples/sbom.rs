//! The bill of materials of the image, as SPDX 2.3 JSON on standard output: every crate that is linked into
//! its programs, with version, licence and source. Reads what cargo says on standard input:
//! `cargo tree -e normal --prefix none --format '{p}|{l}' | sbom VERSION`.

use std::collections::BTreeSet;
use std::io::Read;

use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let version = std::env::args().nth(1).unwrap_or_default();
    println!("{:#}", document(&text, &version));
    Ok(())
}

/// The document. It carries no time of its making, so that the same sources give the same image.
fn document(tree: &str, version: &str) -> Value {
    let crates: BTreeSet<Crate> = tree.lines().filter_map(parse).collect();
    let packages: Vec<Value> = crates.iter().map(package).collect();
    let describes = |package: &Value| {
        json!({"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
               "relatedSpdxElement": package["SPDXID"]})
    };
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("weft-{version}"),
        "documentNamespace": format!("https://spdx.org/spdxdocs/weft-{version}"),
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Tool: weft-sbom"]},
        "relationships": packages.iter().map(describes).collect::<Vec<_>>(),
        "packages": packages,
    })
}

/// Name, version and licence.
type Crate = (String, String, String);

/// A line as `serde v1.0.228 (proc-macro)|MIT OR Apache-2.0`; those seen before end with ` (*)`.
fn parse(line: &str) -> Option<Crate> {
    let (name, licence) = line.trim_end_matches(" (*)").split_once('|')?;
    let mut words = name.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    // `MIT/Apache-2.0` is how licences were written before SPDX expressions.
    Some((name.to_owned(), version.to_owned(), licence.replace('/', " OR ")))
}

fn package((name, version, licence): &Crate) -> Value {
    let is_ours = name == "weft" || name.starts_with("weft-");
    let location =
        if is_ours { "NOASSERTION".to_owned() } else { format!("https://crates.io/crates/{name}/{version}") };
    json!({
        "SPDXID": format!("SPDXRef-{}-{version}", name.replace('_', "-")).replace('+', "-"),
        "name": name,
        "versionInfo": version,
        "licenseDeclared": licence,
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "downloadLocation": location,
        "filesAnalyzed": false,
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                          "referenceLocator": format!("pkg:cargo/{name}@{version}")}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_is_in_it_once_with_its_licence() {
        let tree = "weft-image v0.1.0 (/src/deploy)|Apache-2.0\nserde v1.0.2|MIT/Apache-2.0\nserde v1.0.2|MIT/Apache-2.0 (*)\n\n";
        let document = document(tree, "0.1.0");
        let packages = document["packages"].as_array().unwrap();
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0]["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(packages[0]["externalRefs"][0]["referenceLocator"], "pkg:cargo/serde@1.0.2");
        assert_eq!(document["relationships"].as_array().unwrap().len(), 2);
    }
}
