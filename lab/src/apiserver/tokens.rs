//! Tokens of ServiceAccounts: made on request (TokenRequest) and looked up (TokenReview), both of
//! authentication.k8s.io/v1. They live as long as the server. Time and randomness come from outside.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::error::{ApiError, Cause, Result};
use super::object;

/// Whom a token is for that names no audience: this server, as real ones name themselves by default.
const OWN_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";
/// For how long a token is good where nobody says otherwise, in seconds; and the shortest that may be asked for.
const LIFE: i64 = 3600;
const SHORTEST_LIFE: i64 = 600;
const LONGEST_LIFE: i64 = 1 << 32;

/// A token that was made.
#[derive(Clone, Debug)]
struct Issued {
    namespace: String,
    account: String,
    uid: String,
    audiences: BTreeSet<String>,
    until: Timestamp,
}

/// All tokens that are good.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    issued: BTreeMap<String, Issued>,
}

impl Tokens {
    /// Makes a token of a ServiceAccount, for what a TokenRequest says. `secret` is what nobody can guess.
    pub(crate) fn issue(
        &mut self,
        account: &Value,
        request: &Value,
        secret: &str,
        now: Timestamp,
    ) -> Result<Value> {
        let name = object::name(account).to_owned();
        let life = match &request["spec"]["expirationSeconds"] {
            Value::Null => LIFE,
            seconds => seconds.as_i64().unwrap_or_default(),
        };
        let field = "spec.expirationSeconds";
        let invalid = |detail| {
            let causes = vec![Cause::invalid(field, &request["spec"]["expirationSeconds"], detail)];
            ApiError::Invalid { kind: "TokenRequest", name: String::new(), causes }
        };
        if life < SHORTEST_LIFE {
            return Err(invalid("may not specify a duration less than 10 minutes"));
        }
        if life > LONGEST_LIFE {
            return Err(invalid("may not specify a duration larger than 2^32 seconds"));
        }
        let asked = audiences(request);
        let audiences = if asked.is_empty() { BTreeSet::from([OWN_AUDIENCE.to_owned()]) } else { asked };
        let until = now.saturating_add(SignedDuration::from_secs(life)).unwrap_or(Timestamp::MAX);
        let token = format!("weft-lab.{secret}");
        let namespace = object::namespace(account).to_owned();
        let issued =
            Issued { namespace, account: name, uid: object::uid(account).to_owned(), audiences, until };
        let mut answer = request.clone();
        answer["apiVersion"] = json!("authentication.k8s.io/v1");
        answer["kind"] = json!("TokenRequest");
        answer["spec"]["audiences"] = json!(issued.audiences);
        answer["spec"]["expirationSeconds"] = json!(life);
        answer["status"] =
            json!({"token": token, "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
        self.issued.retain(|_, other| other.until > now);
        self.issued.insert(token, issued);
        Ok(answer)
    }

    /// Says whose the token of a TokenReview is. `uid_of` tells which account has a name now.
    pub(crate) fn review(
        &self,
        review: &Value,
        now: Timestamp,
        uid_of: impl Fn(&str, &str) -> Option<String>,
    ) -> Value {
        let asked = audiences(review);
        let asked = if asked.is_empty() { BTreeSet::from([OWN_AUDIENCE.to_owned()]) } else { asked };
        let issued = review["spec"]["token"].as_str().and_then(|token| self.issued.get(token));
        let known = issued.filter(|one| {
            one.until > now && uid_of(&one.namespace, &one.account).is_some_and(|uid| uid == one.uid)
        });
        let both = known.map(|one| one.audiences.intersection(&asked).cloned().collect::<Vec<_>>());
        let mut answer = review.clone();
        answer["apiVersion"] = json!("authentication.k8s.io/v1");
        answer["kind"] = json!("TokenReview");
        answer["status"] = match (known, both) {
            (Some(Issued { namespace, account, uid, .. }), Some(both)) if !both.is_empty() => json!({
                "authenticated": true,
                "audiences": both,
                "user": {
                    "username": format!("system:serviceaccount:{namespace}:{account}"), "uid": uid,
                    "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
                },
            }),
            (Some(_), _) => {
                json!({"user": {}, "error": format!("token audiences is invalid for the target audiences {asked:?}")})
            }
            (None, _) => json!({"user": {}, "error": "invalid bearer token"}),
        };
        answer
    }
}

fn audiences(request: &Value) -> BTreeSet<String> {
    let list = request["spec"]["audiences"].as_array().into_iter().flatten();
    list.filter_map(|audience| audience.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn at(seconds: i64) -> Timestamp {
        NOW.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    fn account() -> Value {
        json!({"metadata": {"namespace": "kube-system", "name": "reader", "uid": "1"}})
    }

    /// Whose a token is at a time, and why nobody's.
    fn whose(
        tokens: &Tokens,
        token: &Value,
        audience: &str,
        seconds: i64,
    ) -> std::result::Result<String, String> {
        let review = json!({"spec": {"token": token, "audiences": [audience]}});
        let uid = |namespace: &str, name: &str| {
            (namespace == "kube-system" && name == "reader").then(|| "1".to_owned())
        };
        let status = &tokens.review(&review, at(seconds), uid)["status"];
        match status["authenticated"] == true {
            true => Ok(status["user"]["username"].as_str().unwrap().to_owned()),
            false => Err(status["error"].as_str().unwrap().to_owned()),
        }
    }

    #[test]
    fn a_token_is_its_account_s_for_its_audience_and_its_time() {
        let mut tokens = Tokens::default();
        let request = json!({"spec": {"audiences": ["agent"], "expirationSeconds": 600}});
        let answer = tokens.issue(&account(), &request, "s3cr3t", at(0)).unwrap();
        assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-01T00:10:00Z");
        let token = &answer["status"]["token"];
        assert_eq!(whose(&tokens, token, "agent", 599).unwrap(), "system:serviceaccount:kube-system:reader");
        assert!(whose(&tokens, token, "agent", 600).unwrap_err().contains("invalid bearer token"));
        assert!(whose(&tokens, token, OWN_AUDIENCE, 1).unwrap_err().contains("target audiences"));
        assert!(whose(&tokens, &json!("guessed"), "agent", 1).is_err());
        assert!(whose(&tokens, &Value::Null, "agent", 1).is_err());
        let gone =
            tokens.review(&json!({"spec": {"token": token, "audiences": ["agent"]}}), at(1), |_, _| None);
        assert_eq!(gone["status"]["authenticated"], Value::Null, "the account is gone");
        let made_again =
            tokens.review(&json!({"spec": {"token": token, "audiences": ["agent"]}}), at(1), |_, _| {
                Some("2".to_owned())
            });
        assert_eq!(made_again["status"]["authenticated"], Value::Null);
    }

    #[test]
    fn without_wishes_it_is_for_the_server_and_an_hour() {
        let mut tokens = Tokens::default();
        let answer = tokens.issue(&account(), &json!({}), "s", at(0)).unwrap();
        assert_eq!(answer["spec"], json!({"audiences": [OWN_AUDIENCE], "expirationSeconds": 3600}));
        let review = json!({"spec": {"token": answer["status"]["token"]}});
        assert_eq!(
            tokens.review(&review, at(0), |_, _| Some("1".to_owned()))["status"]["authenticated"],
            true
        );
    }

    #[test]
    fn a_life_that_is_none_is_refused() {
        for seconds in [json!(599), json!(-1), json!("600"), json!(1_i64 << 33)] {
            let request = json!({"spec": {"expirationSeconds": seconds}});
            let error = Tokens::default().issue(&account(), &request, "s", at(0)).unwrap_err();
            assert_eq!(error.code(), 422, "{seconds}");
        }
    }
}
