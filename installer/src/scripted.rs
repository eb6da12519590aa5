//! An API server that answers tests by what they give it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::json;

/// An API server that knows these paths, and a kubeconfig of it. Its thread lives as long as the test.
pub(crate) fn cluster(answers: Vec<(&'static str, String)>) -> tempfile::NamedTempFile {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = request[0].split(' ').nth(1).unwrap();
            let known = answers.iter().find(|(known, _)| *known == path.split("?&").next().unwrap());
            let missing = json!({"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound", "message": path});
            let (status, body) = match known {
                Some((_, body)) => ("200 OK", body.clone()),
                None => ("404 Not Found", missing.to_string()),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        clusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}]\n\
        contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    kubeconfig
}
