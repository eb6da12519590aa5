//! An API server that answers tests by what they give it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::json;

/// What is answered at a path.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    code: u16,
    body: String,
    /// A line of the request's head without which there is no such path.
    needs: Option<&'static str>,
    is_once: bool,
}

impl Answer {
    /// A good one.
    pub(crate) fn ok(body: String) -> Answer {
        Answer { code: 200, body, needs: None, is_once: false }
    }

    /// A refusal.
    pub(crate) fn refused(code: u16, body: &str) -> Answer {
        Answer { code, ..Answer::ok(body.to_owned()) }
    }

    /// Only to requests with this header.
    pub(crate) fn only_with(self, header: &'static str) -> Answer {
        Answer { needs: Some(header), ..self }
    }

    /// Then it is forgotten.
    pub(crate) fn once(self) -> Answer {
        Answer { is_once: true, ..self }
    }
}

/// An API server that knows these paths, and a kubeconfig of it. Its thread lives as long as the test.
pub(crate) fn cluster(answers: Vec<(&'static str, String)>) -> tempfile::NamedTempFile {
    server(answers.into_iter().map(|(path, body)| (path, Answer::ok(body))).collect())
}

/// The same, with answers of any kind.
pub(crate) fn server(mut answers: Vec<(&'static str, Answer)>) -> tempfile::NamedTempFile {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let lines = reader.by_ref().lines().map(Result::unwrap);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            // What is left unread would reset the connection.
            let length = request
                .iter()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            reader.read_exact(&mut vec![0; length.unwrap_or_default()]).unwrap();
            let path = request[0].split(' ').nth(1).unwrap();
            let is_whole =
                |answer: &Answer| answer.needs.is_none_or(|line| request.iter().any(|it| it == line));
            // A client asks for lists of all with an empty query, and selects labels by another.
            let plain = path.split("?&").next().unwrap();
            let is_it = |known: &str| known == plain || plain.strip_prefix(known).is_some_and(is_selection);
            let place = answers.iter().position(|(known, answer)| is_it(known) && is_whole(answer));
            let missing = json!({"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound", "message": path});
            let (code, body) = match place {
                Some(place) if answers[place].1.is_once => {
                    let (_, answer) = answers.remove(place);
                    (answer.code, answer.body)
                }
                Some(place) => (answers[place].1.code, answers[place].1.body.clone()),
                None => (404, missing.to_string()),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {code} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
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

fn is_selection(query: &str) -> bool {
    query.starts_with("?&labelSelector=") || query.starts_with("?labelSelector=")
}
