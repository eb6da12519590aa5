//! Label selectors, in the text of a query (`a=b,c in (d,e)`) and as they stand in objects.

use std::fmt;

use serde_json::Value;

use super::error::{ApiError, Result};
use super::object::{items, text};

/// What an object's labels must be like. All requirements hold at once; an empty selector takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl LabelSelector {
    /// Reads the text of a query's `labelSelector`.
    pub(crate) fn parse(query: &str) -> Result<Self> {
        let parts = split(query);
        let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
        parts.map(requirement).collect::<Result<_>>().map(Self)
    }

    /// Reads a plain map of labels, as `spec.selector` of a Service: each of them must be there.
    pub(crate) fn of_labels(labels: &Value) -> Self {
        let labels = labels.as_object().into_iter().flatten();
        Self(labels.map(|(key, value)| Requirement::is(key, text(value))).collect())
    }

    /// Reads a `LabelSelector` object: `matchLabels` and `matchExpressions`.
    pub(crate) fn of_object(selector: &Value) -> Self {
        let mut all = Self::of_labels(&selector["matchLabels"]);
        for expression in items(&selector["matchExpressions"]) {
            let values = items(&expression["values"]).iter().map(|value| text(value).to_owned()).collect();
            let operator = match text(&expression["operator"]) {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "DoesNotExist" => Operator::Absent,
                _ => Operator::Exists,
            };
            all.0.push(Requirement { key: text(&expression["key"]).to_owned(), operator });
        }
        all
    }

    /// Does the object's `metadata.labels` fit?
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.matches_labels(&object["metadata"]["labels"])
    }

    /// Does this map of labels fit?
    pub(crate) fn matches_labels(&self, labels: &Value) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }

    /// Does it ask for nothing?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// As `kubectl` prints it (apimachinery `FormatLabelSelector`), which is also the text of a query.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Requirement { key, operator }) in self.0.iter().enumerate() {
            f.write_str(if position > 0 { "," } else { "" })?;
            match operator {
                Operator::Exists => write!(f, "{key}")?,
                Operator::Absent => write!(f, "!{key}")?,
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
            }
        }
        Ok(())
    }
}

impl Requirement {
    fn is(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), operator: Operator::In(vec![value.to_owned()]) }
    }

    fn holds(&self, labels: &Value) -> bool {
        let value = labels.get(&self.key).and_then(Value::as_str);
        let among = |values: &[String]| value.is_some_and(|value| values.iter().any(|one| one == value));
        match &self.operator {
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::In(values) => among(values),
            Operator::NotIn(values) => !among(values),
        }
    }
}

/// Splits at the commas that stand outside of parentheses.
fn split(query: &str) -> Vec<&str> {
    let mut depth = 0;
    query
        .split(|letter| {
            match letter {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            letter == ',' && depth == 0
        })
        .collect()
}

fn requirement(part: &str) -> Result<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return named(key, Operator::Absent);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return named(key, Operator::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return named(key, Operator::In(vec![value.trim().to_owned()]));
    }
    let mut words = part.splitn(2, char::is_whitespace);
    let (key, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
    match (rest.is_empty(), set(rest, "notin"), set(rest, "in")) {
        (true, ..) => named(key, Operator::Exists),
        (_, Some(values), _) => named(key, Operator::NotIn(values)),
        (_, _, Some(values)) => named(key, Operator::In(values)),
        _ => Err(unreadable(part)),
    }
}

fn named(key: &str, operator: Operator) -> Result<Requirement> {
    let key = key.trim();
    if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "()=!,".contains(c)) {
        return Err(unreadable(key));
    }
    Ok(Requirement { key: key.to_owned(), operator })
}

fn set(rest: &str, word: &str) -> Option<Vec<String>> {
    let list = rest.strip_prefix(word)?.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(list.split(',').map(|value| value.trim().to_owned()).collect())
}

fn unreadable(part: &str) -> ApiError {
    ApiError::BadRequest(format!("unable to parse requirement: {part:?} is no label requirement"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits(query: &str) -> bool {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        LabelSelector::parse(query).unwrap().matches(&object)
    }

    #[test]
    fn every_operator_of_the_query_language() {
        for query in [
            "",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "other!=x",
            "!other",
            "app in (db, web)",
            "app notin (db),tier",
            "other notin (x)",
            " app = web , tier in (front)",
        ] {
            assert!(fits(query), "{query} takes the object");
        }
        for query in
            ["app=db", "app!=web", "!app", "other", "app in (db)", "app notin (web,db)", "app=web,tier=back"]
        {
            assert!(!fits(query), "{query} does not take the object");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for query in ["app in web", "=x", "a b c", "app in (x"] {
            assert!(LabelSelector::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_selector_object_joins_labels_and_expressions() {
        let selector = LabelSelector::of_object(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]},
                                 {"key": "old", "operator": "DoesNotExist"}],
        }));
        assert!(selector.matches_labels(&json!({"app": "web", "tier": "front"})));
        assert!(!selector.matches_labels(&json!({"app": "web", "tier": "back"})));
        assert!(!selector.matches_labels(&json!({"app": "web", "old": ""})));
        assert_eq!(selector.to_string(), "app=web,tier notin (back),!old");
    }
}
