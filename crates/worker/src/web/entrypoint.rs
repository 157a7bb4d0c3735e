//! The command that starts a web server, with the replica's own port in place of the one it was written for.
//!
//! An app says `--port 8000` and means it; several replicas of it cannot all have that port. Replaced is the
//! configured number alone, and only where a word says that it is a port: after a colon (`0.0.0.0:8000`), after
//! an option or variable named so (`--port 8000`, `-p 8000`, `--bind=…`, `PORT=8000`), or as an argument that
//! belongs to no option (`python -m http.server 8000`). Others of the same number stay (`--timeout 8000`).

use std::borrow::Cow;

use queue::web::Entrypoint;

/// The words to execute, and whether one of them was changed.
pub(super) fn words(entrypoint: &Entrypoint, from: u16, to: u16) -> (Vec<String>, bool) {
    match entrypoint {
        Entrypoint::Line(line) => {
            let changed = in_line(line, from, to);
            let differs = changed != *line;
            (vec!["/bin/sh".into(), "-c".into(), changed], differs)
        }
        Entrypoint::Words(words) => {
            let mut before = "";
            let mut changed = Vec::with_capacity(words.len());
            for word in words {
                // A line for a shell may be one of the words: `["sh", "-c", "…"]`.
                let new = if word.contains(char::is_whitespace) {
                    in_line(word, from, to)
                } else {
                    in_word(before, word, from, to).into_owned()
                };
                changed.push(new);
                before = word;
            }
            let differs = changed != *words;
            (changed, differs)
        }
    }
}

fn in_line(line: &str, from: u16, to: u16) -> String {
    let is_between = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '&' | '|' | '(' | ')');
    let (mut changed, mut before) = (String::with_capacity(line.len() + 8), "");
    for piece in line.split_inclusive(is_between) {
        let word = piece.trim_end_matches(is_between);
        changed.push_str(&in_word(before, word, from, to));
        changed.push_str(&piece[word.len()..]);
        if !word.is_empty() {
            before = word;
        }
    }
    changed
}

fn in_word<'w>(before: &str, word: &'w str, from: u16, to: u16) -> Cow<'w, str> {
    let number = from.to_string();
    let Some(at) = place_of(before, word, &number) else { return Cow::Borrowed(word) };
    Cow::Owned(format!("{}{to}{}", &word[..at], &word[at + number.len()..]))
}

/// Where in a word the port stands.
fn place_of(before: &str, word: &str, number: &str) -> Option<usize> {
    let at = word.rfind(number)?;
    let (lead, rest) = (&word[..at], &word[at + number.len()..]);
    if !(rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let names_port = |name: &str| {
        let name = name.trim_start_matches('-').to_ascii_lowercase();
        name == "p" || name == "b" || name.contains("port") || name.contains("bind")
    };
    let means_port = match lead.char_indices().next_back() {
        None => !before.starts_with('-') || names_port(before),
        Some((_, ':')) => true,
        Some((end, '=')) => names_port(&lead[..end]),
        Some(_) => lead == "-p",
    };
    means_port.then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: &str) -> String {
        in_line(line, 8000, 23_456)
    }

    #[test]
    fn the_port_is_replaced_where_it_is_one() {
        for (written, started) in [
            ("uvicorn main:app --host 0.0.0.0 --port 8000", "uvicorn main:app --host 0.0.0.0 --port 23456"),
            ("gunicorn -b 0.0.0.0:8000 -w 4 app:app", "gunicorn -b 0.0.0.0:23456 -w 4 app:app"),
            ("gunicorn --bind=[::]:8000 app", "gunicorn --bind=[::]:23456 app"),
            ("python -m http.server 8000", "python -m http.server 23456"),
            ("serve -p8000", "serve -p23456"),
            ("serve -p '8000'", "serve -p '23456'"),
            (
                "PORT=8000 exec ./run --url http://127.0.0.1:8000/v1",
                "PORT=23456 exec ./run --url http://127.0.0.1:23456/v1",
            ),
            ("vllm serve m --server-port=8000 && true", "vllm serve m --server-port=23456 && true"),
        ] {
            assert_eq!(line(written), started);
        }
    }

    #[test]
    fn other_numbers_stay() {
        for written in [
            "run --timeout 8000",
            "run --timeout=8000 --max-len 8000",
            "run --port 18000 --port 80001",
            "run model-8000 8000x x8000",
            "run --port 8001",
            "run --port $PORT --host 0.0.0.0",
            "run ${PORT:-8000}",
        ] {
            assert_eq!(line(written), written);
        }
    }

    #[test]
    fn words_are_looked_at_one_by_one() {
        let entrypoint = |words: &[&str]| Entrypoint::Words(words.iter().map(ToString::to_string).collect());
        let started = |written: &[&str]| words(&entrypoint(written), 8000, 9).0;
        assert_eq!(started(&["uvicorn", "a:app", "--port", "8000"]), ["uvicorn", "a:app", "--port", "9"]);
        assert_eq!(started(&["sh", "-c", "run --port 8000"]), ["sh", "-c", "run --port 9"]);
        assert!(!words(&entrypoint(&["run", "--timeout", "8000"]), 8000, 9).1);
        let shell = words(&Entrypoint::Line("run".into()), 8000, 9);
        assert_eq!(shell, (vec!["/bin/sh".into(), "-c".into(), "run".into()], false));
    }
}
