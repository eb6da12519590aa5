//! Who may ask the agent: whoever reaches its port, for how it is; those with a token, for all else.

use crate::{Machine, NODES, READER, node};

fn ready() -> Machine {
    let mut machine = Machine::new();
    machine.install_plugin();
    machine.server.put(NODES, node(1));
    machine.start();
    machine.until("readiness", |machine| machine.ask("/readyz").0 == "200");
    machine
}

#[test]
fn only_who_may_read_is_told_of_the_node_and_others_are_told_why_not() {
    let machine = ready();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert!(machine.ask_as(None, path).0.starts_with("HTTP/1.0 200"), "{path}");
    }
    let question = "source=10.244.1.2&destination=10.244.1.3";
    let guarded = [
        ("/facts".to_owned(), "200"),
        // It speaks none, and says so.
        ("/bgp".to_owned(), "404"),
        (format!("/policy/explain?{question}"), "200"),
        (format!("/trace?{question}&entry=here&protocol=6&source_port=49152&port=80"), "200"),
    ];
    let needed = "what is needed is one of ServiceAccount kube-system/weft-reader";
    let others = "system:serviceaccount:kube-system:weft-agent@agent.weft.internal";
    for (path, code) in &guarded {
        for (token, refusal, words) in [
            (None, 401, "no token in the header weft-token"),
            (Some("guessed"), 401, "the token is not valid"),
            // What every pod of that account could show, as it is for the API server.
            (
                Some("system:serviceaccount:kube-system:weft-reader@https://kubernetes.default.svc"),
                401,
                "not valid",
            ),
            (Some(others), 403, "the token is of system:serviceaccount:kube-system:weft-agent"),
        ] {
            let (head, body) = machine.ask_as(token, path);
            assert!(head.starts_with(&format!("HTTP/1.0 {refusal}")), "{path} {token:?}: {head}");
            assert!(body.contains(words) && body.contains(needed), "{path} {token:?}: {body}");
            assert_eq!(head.contains("www-authenticate: weft-token"), refusal == 401, "{head}");
        }
        assert_eq!(machine.ask(path).0, *code, "{path}: {}", machine.ask(path).1);
    }
    // How often the API server was asked: each token is remembered.
    let reviews = machine.server.queries("/apis/authentication.k8s.io/v1/tokenreviews", false).len();
    assert_eq!(reviews, 4, "one for each token that was shown");

    // Whoever guesses is told to stop, and keeps nobody with a good token from asking.
    let guess = |number: u32| machine.ask_as(Some(&format!("guess{number}")), "/facts").0;
    let slow_down = (0..30).map(guess).find(|head| head.contains(" 429 ")).expect("too much");
    assert!(slow_down.contains("retry-after: 1"), "{slow_down}");
    assert_eq!(machine.ask("/facts").0, "200");
}

/// What the API server does not vouch for is not let in.
#[test]
fn without_the_api_server_new_tokens_are_not_taken() {
    let mut machine = ready();
    assert_eq!(machine.ask("/facts").0, "200");
    machine.server.stop();
    assert_eq!(machine.ask("/facts").0, "200", "a token that is known");
    let other = format!("x{READER}");
    let (head, body) = machine.ask_as(Some(&other), "/facts");
    assert!(
        head.contains(" 503 ") && body.contains("does not tell this agent whose the token is"),
        "{head} {body}"
    );
}
