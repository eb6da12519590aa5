//! The Helm chart, made of what `weft manifests` is made of: the same texts, with a template where a value goes,
//! and the flags' own words as documentation. Its files are stored in `deploy/chart/weft`; a test holds them to
//! this, and what real Helm makes of them to what [`manifests::render`] says of the same values.

mod schema;
mod templates;

use clap::{Arg, ArgAction, Args, Command};

use crate::manifests::Values;

/// A value of the chart: a flag of `weft install`.
struct Value {
    /// The name of its field.
    id: String,
    /// Its name in the chart: the flag's, as Helm has names.
    key: String,
    /// What it is for.
    help: String,
    kind: Kind,
    /// What it is where nobody says otherwise.
    default: Vec<String>,
    /// What it may be, where that is a few words.
    words: Vec<String>,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Switch,
    /// True or false, or neither where there is no default.
    Bool,
    Number,
    Text,
    List,
}

/// The chart's files, by their paths in its folder.
pub fn files() -> Vec<(&'static str, String)> {
    let values = values();
    let mut files = vec![
        ("Chart.yaml", chart()),
        ("values.yaml", documented(&values)),
        ("values.schema.json", schema::text(&values)),
        ("templates/NOTES.txt", NOTES.to_owned()),
    ];
    files.extend(templates::all(&values));
    files
}

const NOTES: &str = "\
Weft is on its way to every node. When its pods are ready, see that pods reach Services by name:

  weft status
  weft self-test --image {{ .Values.image }}

Before `helm uninstall`, run `weft uninstall`: it takes off the nodes what Helm knows nothing of.
";

fn chart() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "# Made by `weft chart`; not to be edited.\n\
         apiVersion: v2\n\
         name: weft\n\
         description: Pod network, Services and DNS for a Kubernetes cluster\n\
         type: application\n\
         version: {version}\n\
         appVersion: {version}\n"
    )
}

/// Every flag of `weft install` that goes into the manifests.
fn values() -> Vec<Value> {
    let command = Values::augment_args(Command::new("weft"));
    command.get_arguments().filter(|it| it.get_long().is_some()).map(value).collect()
}

fn value(arg: &Arg) -> Value {
    let long = arg.get_long().unwrap_or_default();
    let words = arg.get_possible_values().into_iter().map(|word| word.get_name().to_owned()).collect();
    let name = arg.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
    let kind = match arg.get_action() {
        ArgAction::SetTrue => Kind::Switch,
        _ if name == "BOOL" => Kind::Bool,
        _ if arg.get_value_delimiter().is_some() => Kind::List,
        _ if ["BYTES", "PORT", "SECONDS", "NUMBER", "HOPS"].contains(&name) => Kind::Number,
        _ => Kind::Text,
    };
    let default = arg.get_default_values().iter().map(|it| it.to_string_lossy().into_owned());
    Value {
        id: arg.get_id().to_string(),
        key: camel_case(long),
        help: arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default(),
        kind,
        default: default.collect(),
        words: if matches!(kind, Kind::Switch | Kind::Bool) { Vec::new() } else { words },
    }
}

/// `lb-pool` is `lbPool`.
fn camel_case(flag: &str) -> String {
    let mut words = flag.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let (head, tail) = word.split_at(1);
        text + &head.to_uppercase() + tail
    })
}

impl Value {
    /// Its default as YAML, on one line.
    fn default_text(&self) -> String {
        let first = self.default.first().map_or("", String::as_str);
        match self.kind {
            Kind::Switch => "false".to_owned(),
            Kind::Bool | Kind::Number if first.is_empty() => "null".to_owned(),
            Kind::Bool | Kind::Number => first.to_owned(),
            Kind::Text => format!("{first:?}"),
            Kind::List => format!("{:?}", self.default),
        }
    }
}

/// The values with what they are for.
fn documented(values: &[Value]) -> String {
    let mut text =
        "# Made by `weft chart`; not to be edited. Each value is the flag of `weft install` of that name.\n"
            .to_owned();
    for value in values {
        text.push('\n');
        let words = match value.words.as_slice() {
            [] => String::new(),
            words => format!(" One of: {}.", words.join(", ")),
        };
        // clap leaves out the end of a sentence.
        let help = value.help.trim_end_matches('.');
        for line in wrapped(&format!("{help}.{words}")) {
            text += &format!("# {line}\n");
        }
        text += &format!("{}: {}\n", value.key, value.default_text());
    }
    text
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one from the start");
        match line.is_empty() {
            true => line.push_str(word),
            false if line.len() + 1 + word.len() > 100 => lines.push(word.to_owned()),
            false => *line += &format!(" {word}"),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_are_as_helm_has_them() {
        assert_eq!(["image", "lb-pool", "cni-bin-dir"].map(camel_case), ["image", "lbPool", "cniBinDir"]);
    }

    #[test]
    fn every_flag_is_a_value_with_its_documentation_and_default() {
        let text = documented(&values());
        for part in [
            "\nclusterCidr: [\"10.244.0.0/16\"]\n",
            "\nmtu: null\n",
            "\nproxyMode: \"nftables\"\n",
            "\nnodeLocalDns: false\n",
            "\nnetworkPolicy: true\n",
            "\nlbL2: null\n",
            "\napiPort: 6443\n",
            "One of: node-cidr, blocks.",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(values().iter().all(|value| !value.help.is_empty()));
    }

    /// What is stored is what people install.
    #[test]
    fn the_stored_chart_is_not_stale() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart/weft");
        for (path, text) in files() {
            let stored = fs::read_to_string(folder.join(path)).unwrap_or_default();
            assert!(stored == text, "deploy/chart/weft/{path} is stale: weft chart deploy/chart/weft");
        }
    }
}
