//! What selectors match, by the tables of the API's documentation and by properties.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> Requirement {
    Requirement::new(key, operator, values).unwrap()
}

#[test]
fn operators_match_as_in_kubernetes() {
    let (none, db, web) = (labels(&[]), labels(&[("tier", "db")]), labels(&[("tier", "web"), ("app", "")]));
    for (key, operator, values, expected) in [
        ("tier", "In", &["db"][..], [false, true, false]),
        ("tier", "In", &["db", "web", "db"], [false, true, true]),
        // Kubernetes: a label that is not there is in no set, so NotIn holds.
        ("tier", "NotIn", &["db"], [true, false, true]),
        ("tier", "NotIn", &["db", "web"], [true, false, false]),
        ("tier", "Exists", &[], [false, true, true]),
        ("tier", "DoesNotExist", &[], [true, false, false]),
        // The empty value is a value; a label that is not there does not have it.
        ("app", "In", &[""], [false, false, true]),
        ("app", "NotIn", &[""], [true, true, false]),
        ("app", "Exists", &[], [false, false, true]),
    ] {
        let requirement = requirement(key, operator, values);
        let matched = [&none, &db, &web].map(|labels| requirement.matches(labels));
        assert_eq!(matched, expected, "{requirement}");
    }
}

#[test]
fn values_and_keys_are_compared_by_letter_case() {
    let upper = labels(&[("Tier", "DB")]);
    assert!(!Requirement::equals("tier", "DB").unwrap().matches(&upper));
    assert!(!Requirement::equals("Tier", "db").unwrap().matches(&upper));
    assert!(Requirement::equals("Tier", "DB").unwrap().matches(&upper));
}

#[test]
fn a_selector_without_requirements_matches_everything() {
    let everything = LabelSelector::default();
    assert!(everything.is_everything());
    assert!(everything.matches(&Labels::default()) && everything.matches(&labels(&[("a", "b")])));
}

#[test]
fn all_requirements_must_be_met() {
    let parts = [Requirement::equals("app", "shop").unwrap(), requirement("tier", "NotIn", &["db"])];
    let selector: LabelSelector = parts.into_iter().collect();
    assert!(selector.matches(&labels(&[("app", "shop")])));
    assert!(selector.matches(&labels(&[("app", "shop"), ("tier", "web")])));
    assert!(!selector.matches(&labels(&[("app", "shop"), ("tier", "db")])));
    assert!(!selector.matches(&labels(&[("tier", "web")])));
    assert_eq!(selector.to_string(), "app=shop,tier notin (db)");
}

#[test]
fn contradictions_match_nothing() {
    let parts = [requirement("a", "Exists", &[]), requirement("a", "DoesNotExist", &[])];
    let selector: LabelSelector = parts.into_iter().collect();
    assert!(!selector.matches(&Labels::default()) && !selector.matches(&labels(&[("a", "")])));
}

#[test]
fn what_the_api_server_would_refuse_is_refused() {
    let refusal = |key: &str, operator: &str, values: &[&str]| {
        Requirement::new(key, operator, values).expect_err("refused").to_string()
    };
    assert_eq!(refusal("a", "In", &[]), "operator In needs values");
    assert_eq!(refusal("a", "NotIn", &[]), "operator NotIn needs values");
    assert_eq!(refusal("a", "Exists", &["b"]), "operator Exists takes no values");
    assert_eq!(refusal("a", "DoesNotExist", &[""]), "operator DoesNotExist takes no values");
    for operator in ["in", "Equals", "Gt", ""] {
        assert!(refusal("a", operator, &["b"]).ends_with("is none of In, NotIn, Exists, DoesNotExist"));
    }
    for value in ["a b", "-a", "a-", "ü", &"x".repeat(64)] {
        assert!(refusal("a", "In", &[value]).contains("is no label value"), "{value}");
    }
}

#[test]
fn keys_are_qualified_names() {
    let (name, label) = ("x".repeat(63), "x".repeat(64));
    let longest = format!("{}/{name}", [&*label; 3].join(".") + &"y".repeat(59));
    for key in ["a", "A.b_c-9", "example.com/a", "kubernetes.io/metadata.name", &name, &longest] {
        assert!(Requirement::equals(key, "").is_ok(), "{key}");
    }
    let too_long = format!("{}/a", "x".repeat(254));
    for key in ["", "-a", "a_", "/a", "a/", "a/b/c", "Example.com/a", "a..b/c", ".a/b", &label, &too_long] {
        assert_eq!(Requirement::equals(key, ""), Err(InvalidSelector::Key(key.to_owned())), "{key}");
    }
}

const KEYS: [&str; 3] = ["a", "b", "c"];
const VALUES: [&str; 3] = ["", "x", "y"];

fn any_labels() -> impl Strategy<Value = Labels> {
    btree_map(select(&KEYS), select(&VALUES), 0..4).prop_map(|map| map.into_iter().collect())
}

fn any_values() -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(&VALUES), 1..4)
}

proptest! {
    #[test]
    fn not_in_is_the_opposite_of_in(key in select(&KEYS), values in any_values(), labels in any_labels()) {
        let [is_in, not_in] = ["In", "NotIn"].map(|operator| requirement(key, operator, &values).matches(&labels));
        prop_assert_ne!(is_in, not_in);
        prop_assert_eq!(is_in, labels.get(key).is_some_and(|value| values.contains(&value)));
    }

    #[test]
    fn does_not_exist_is_the_opposite_of_exists(key in select(&KEYS), labels in any_labels()) {
        let [exists, not] = ["Exists", "DoesNotExist"].map(|it| requirement(key, it, &[]).matches(&labels));
        prop_assert_ne!(exists, not);
        prop_assert_eq!(exists, labels.iter().any(|(other, _)| other == key));
    }

    #[test]
    fn labels_match_the_selector_made_of_them(labels in any_labels(), more in any_labels()) {
        let selector: LabelSelector =
            labels.iter().map(|(key, value)| Requirement::equals(key, value).unwrap()).collect();
        prop_assert!(selector.matches(&labels));
        // Labels that are not asked for do no harm.
        let all: Labels = more.iter().chain(labels.iter()).collect();
        prop_assert!(selector.matches(&all));
    }

    #[test]
    fn a_requirement_more_matches_no_more(
        parts in vec((select(&KEYS), select(&["In", "NotIn"]), any_values()), 1..5),
        labels in any_labels(),
    ) {
        let parts: Vec<_> = parts.iter().map(|(key, operator, values)| requirement(key, operator, values)).collect();
        let whole: LabelSelector = parts.iter().cloned().collect();
        prop_assert_eq!(whole.matches(&labels), parts.iter().all(|part| part.matches(&labels)));
        // Neither order nor repetition counts.
        let other: LabelSelector = parts.iter().rev().chain(&parts).cloned().collect();
        prop_assert_eq!(&other, &whole);
    }

    #[test]
    fn any_text_makes_a_requirement_or_an_error(key in ".*", operator in ".*", values in vec(".*", 0..3)) {
        if let Err(error) = Requirement::new(&key, &operator, &values) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
