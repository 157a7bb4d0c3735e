//! A recorded request as the `curl` command that sends it again.
//!
//! The command is pasted into somebody's terminal, and every part of it was chosen by a stranger:
//! nothing may leave its quotes, and no control character may reach the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use pages::shell::quoted;
use queue::inbox::CapturedRequest;
use queue::replay::headers_sent;

/// Bodies up to this many bytes stand in the command; others come from a file.
const INLINE_BODY_BYTES_MAX: usize = 8 << 10;

/// The command, over several lines. `origin` is the scheme, host and port of this server.
pub(crate) fn command(request: &CapturedRequest, origin: &str) -> String {
    let mut command = String::from("curl");
    if request.method == "HEAD" && request.body.is_empty() {
        command.push_str(" --head");
    } else {
        let _ = write!(command, " -X {}", quoted(&request.method));
    }
    if request.path.contains(['[', ']', '{', '}']) {
        command.push_str(" --globoff");
    }
    if request.path.contains("/.") {
        command.push_str(" --path-as-is");
    }
    let _ = write!(command, " {}", quoted(&format!("{origin}{}", request.path)));
    for (name, value) in headers_sent(&request.headers) {
        // `name;` is how curl is told to send a header without a value.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        let _ = write!(command, " \\\n  -H {}", quoted(&header));
    }
    if request.body.is_empty() {
        return command;
    }
    if !request.headers.iter().any(|(name, _)| name == "content-type") {
        command.push_str(" \\\n  -H content-type:");
    }
    // A body that begins with `@` would name a file, and no argument can hold a NUL.
    let inline = std::str::from_utf8(&request.body)
        .ok()
        .filter(|body| body.len() <= INLINE_BODY_BYTES_MAX && !body.contains('\0') && !body.starts_with('@'));
    let body = match inline {
        Some(body) => quoted(body),
        None => Cow::Owned(format!("@{}", file_name(request.sequence))),
    };
    let _ = write!(command, " \\\n  --data-binary {body}");
    command
}

/// What the body of a request is called when it is downloaded.
pub(crate) fn file_name(sequence: i64) -> String {
    format!("request-{sequence}.bin")
}

#[cfg(test)]
mod tests {
    use testkit::recorded;

    use super::*;

    fn request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> CapturedRequest {
        recorded("POST", path, headers, body)
    }

    #[test]
    fn a_request_is_sent_again_as_it_came() {
        let headers =
            [("host", "x"), ("content-length", "2"), ("content-type", "application/json"), ("x-empty", "")];
        let command = command(&request("/inbox/1?a=b", &headers, b"{}"), "http://127.0.0.1:4100");
        let expected = "curl -X POST 'http://127.0.0.1:4100/inbox/1?a=b' \\\n  -H 'content-type: application/json' \
                        \\\n  -H 'x-empty;' \\\n  --data-binary '{}'";
        assert_eq!(command, expected);
    }

    #[test]
    fn nothing_leaves_its_quotes_or_acts_on_the_terminal() {
        let body = b"\x1b[201~it's\n\\ \xe2\x80\xae";
        let hostile = request("/inbox/1", &[("x-a", "'; rm -rf ~; '")], body);
        let expected = r"curl -X POST http://h/inbox/1 \
  -H 'x-a: '\''; rm -rf ~; '\''' \
  -H content-type: \
  --data-binary $'\x1b[201~it\'s\n\\ \U0000202e'";
        assert_eq!(command(&hostile, "http://h"), expected);
    }

    #[test]
    fn bodies_that_no_argument_can_hold_come_from_the_downloaded_file() {
        for body in [&b"@/etc/passwd"[..], b"\0", b"\xff", &[b'a'; INLINE_BODY_BYTES_MAX + 1]] {
            let command = command(&request("/inbox/1", &[], body), "http://h");
            assert!(command.ends_with("--data-binary @request-1.bin"), "{command}");
        }
    }
}
