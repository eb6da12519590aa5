//! What the chart's values may be, as a JSON Schema (draft 7), which Helm holds them to.

use serde_json::{Map, Value as Json, json};

use super::{Kind, Value};

/// What may stand in a text or in an element of a list: nothing that ends a string or begins another element.
const WORD: &str = r#"^[^\s"'{}\\,]*$"#;
/// What may stand where a path is named, between the signs of YAML.
const PATH: &str = "^/[A-Za-z0-9._/-]+$";

pub(super) fn text(values: &[Value]) -> String {
    let mut properties: Map<String, Json> =
        values.iter().map(|value| (value.key.clone(), property(value))).collect();
    // Helm gives these to every chart.
    properties.insert("global".to_owned(), json!({"type": "object"}));
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart weft",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    format!("{schema:#}\n")
}

fn property(value: &Value) -> Json {
    let mut schema = match value.kind {
        Kind::Switch => json!({"type": "boolean"}),
        Kind::Bool if value.default.is_empty() => json!({"type": ["boolean", "null"]}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Number if value.default.is_empty() => json!({"type": ["integer", "null"], "minimum": 0}),
        Kind::Number => json!({"type": "integer", "minimum": 0}),
        Kind::List => json!({"type": "array", "items": word(value)}),
        Kind::Text => word(value),
    };
    schema["description"] = json!(value.help.split_whitespace().collect::<Vec<_>>().join(" "));
    schema
}

fn word(value: &Value) -> Json {
    let default = value.default.first().map_or("", String::as_str);
    match (value.words.is_empty(), default) {
        (true, path) if path.starts_with('/') => json!({"type": "string", "pattern": PATH}),
        (true, _) => json!({"type": "string", "pattern": WORD}),
        (false, "") => {
            // Without a default it may be left out.
            let words: Vec<&str> = [""].into_iter().chain(value.words.iter().map(String::as_str)).collect();
            json!({"type": "string", "enum": words})
        }
        (false, _) => json!({"type": "string", "enum": value.words}),
    }
}
