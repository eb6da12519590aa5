//! TokenReviews: whose a token is (authentication.k8s.io/v1). Nothing of it is kept by the API server. What
//! whoever has a token may do is not decided here.

use std::time::Duration;

use kube::Client;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::error::chain;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose a token is, by the name that the API server knows them by (`system:serviceaccount:NAMESPACE:NAME`);
/// nobody's if it is not valid, has expired, or is for another audience.
///
/// # Errors
/// Why that cannot be told, in one line.
pub async fn review_token(client: &Client, token: &str, audience: &str) -> Result<Option<String>, String> {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    });
    let request = Request::new("/apis/authentication.k8s.io/v1/tokenreviews")
        .create(&PostParams::default(), review.to_string().into_bytes())
        .map_err(|error| chain(&error))?;
    let answer = timeout(PATIENCE, client.request::<Value>(request)).await;
    let answer = answer.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?;
    answer.map(|review| user(&review["status"], audience)).map_err(|error| chain(&error))
}

/// A server that knows nothing of audiences names none in its answer, and has not looked at them (TokenReview's
/// `status.audiences`).
fn user(status: &Value, audience: &str) -> Option<String> {
    let audiences = status["audiences"].as_array()?;
    let is_valid = status["authenticated"] == true && audiences.iter().any(|one| one == audience);
    status["user"]["username"].as_str().filter(|_| is_valid).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_somebody_s_only_for_its_audience() {
        let whole = json!({"authenticated": true, "audiences": ["a", "b"], "user": {"username": "jane"}});
        assert_eq!(user(&whole, "a").as_deref(), Some("jane"));
        assert_eq!(user(&whole, "c"), None);
        for (field, value) in [
            ("authenticated", json!(false)),
            ("authenticated", json!("true")),
            ("audiences", Value::Null),
            ("audiences", json!([])),
            ("audiences", json!("a")),
            ("user", Value::Null),
        ] {
            let mut status = whole.clone();
            status[field] = value;
            assert_eq!(user(&status, "a"), None, "{status}");
        }
        assert_eq!(user(&Value::Null, "a"), None);
    }
}
