//! A config file as a tree of texts with line numbers, whichever language it is written in.
//!
//! Scalars stay as they stand in the source. YAML would read `python_version: 3.10` as the number
//! 3.1; here it is the text `3.10`, and the key that asks for it decides what it means.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};
use toml::de::{DeTable, DeValue};

/// Deepest nesting of a config file; the deepest known key has four levels.
const DEPTH_MAX: usize = 16;

/// A value and the line it begins on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nothing: `key:` or `key: null` in YAML.
    Null,
    /// A string, number or boolean as the source spells it.
    Text {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Table(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

impl Node {
    /// The entry of that name, if this is a table that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Table(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The value below this one at a dotted path.
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self, |node, key| node.get(key))
    }
}

/// Why a text is no document, and where.
#[derive(Debug, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads YAML. Aliases and several documents are refused: no config file of 2023 has them.
pub(super) fn yaml(source: &str) -> Result<Node, SyntaxError> {
    let mut events = Yaml { parser: Parser::new_from_str(source) };
    let mut root = Node { line: 1, value: Value::Table(Vec::new()) };
    let mut documents = 0;
    loop {
        let (event, line) = events.next()?;
        match event {
            Event::StreamEnd => return Ok(root),
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => {
                documents += 1;
                if documents > 1 {
                    return Err(SyntaxError { line, message: "a second document begins here".into() });
                }
                root = events.node(event, line, 0)?;
            }
        }
    }
}

struct Yaml<'a> {
    parser: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
}

impl<'a> Yaml<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), SyntaxError> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, 0)),
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(SyntaxError { line: error.marker().line(), message: error.info() }),
        }
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, SyntaxError> {
        let refuse = |message: &str| Err(SyntaxError { line, message: message.into() });
        if depth > DEPTH_MAX {
            return refuse("nested more deeply than any known key");
        }
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => match text.as_ref() {
                "" | "~" | "null" | "Null" | "NULL" => Value::Null,
                _ => Value::Text { text: text.into_owned(), quoted: false },
            },
            Event::Scalar(text, ..) => Value::Text { text: text.into_owned(), quoted: true },
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(items),
                        (event, line) => items.push(self.node(event, line, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries: Vec<Entry> = Vec::new();
                loop {
                    let (key, line) = match self.next()? {
                        (Event::MappingEnd, _) => break Value::Table(entries),
                        (Event::Scalar(key, ..), line) => (key.into_owned(), line),
                        (_, line) => {
                            return Err(SyntaxError { line, message: "a key must be a plain word".into() });
                        }
                    };
                    if entries.iter().any(|entry| entry.key == key) {
                        return Err(SyntaxError { line, message: format!("`{key}` is here a second time") });
                    }
                    let (event, value_line) = self.next()?;
                    let node = self.node(event, value_line, depth + 1)?;
                    entries.push(Entry { line, key, node });
                }
            }
            Event::Alias(_) => return refuse("aliases (`*name`) are not supported; write the value out"),
            _ => return refuse("a value is missing here"),
        };
        Ok(Node { line, value })
    }
}

/// Reads TOML.
pub(super) fn toml(source: &str) -> Result<Node, SyntaxError> {
    let table = DeTable::parse(source).map_err(|error| SyntaxError {
        line: line_of(source, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    Ok(Node { line: 1, value: entries(source, table.get_ref()) })
}

fn entries(source: &str, table: &DeTable<'_>) -> Value {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| Entry {
            line: line_of(source, key.span().start),
            key: key.get_ref().to_string(),
            node: Node {
                line: line_of(source, value.span().start),
                value: from_toml(source, value.get_ref()),
            },
        })
        .collect();
    entries.sort_by_key(|entry| entry.line);
    Value::Table(entries)
}

fn from_toml(source: &str, value: &DeValue<'_>) -> Value {
    let plain = |text: String| Value::Text { text, quoted: false };
    match value {
        DeValue::String(text) => Value::Text { text: text.to_string(), quoted: true },
        DeValue::Integer(number) => plain(number.to_string()),
        DeValue::Float(number) => plain(number.as_str().to_owned()),
        DeValue::Boolean(flag) => plain(flag.to_string()),
        DeValue::Datetime(at) => plain(at.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node {
                    line: line_of(source, item.span().start),
                    value: from_toml(source, item.get_ref()),
                })
                .collect(),
        ),
        DeValue::Table(table) => entries(source, table),
    }
}

fn line_of(source: &str, offset: usize) -> usize {
    1 + source.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(node: Option<&Node>) -> &str {
        match &node.expect("the key is there").value {
            Value::Text { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_keep_the_spelling_of_the_source() {
        let root = yaml("%YAML 1.2\n---\npython_version: 3.10\nhardware: CPU\n").unwrap();
        assert_eq!(text(root.get("python_version")), "3.10");
        assert_eq!(root.get("python_version").unwrap().line, 3);
        let root = toml("[a]\nx = 3.10\n\n[a.b]\ny = 1_000\n").unwrap();
        assert_eq!(text(root.at("a.x")), "3.10");
        assert_eq!(text(root.at("a.b.y")), "1000");
        assert_eq!(root.at("a.b.y").unwrap().line, 5);
    }

    #[test]
    fn what_is_no_document_is_told_with_its_line() {
        assert_eq!(yaml("a: 1\na: 2\n").unwrap_err().line, 2);
        assert_eq!(yaml("a: &x 1\nb: *x\n").unwrap_err().line, 2);
        assert_eq!(yaml("a: 1\n---\nb: 2\n").unwrap_err().line, 3);
        assert_eq!(toml("a = 1\nb = \n").unwrap_err().line, 2);
        let deep = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
        assert!(yaml(&deep).is_err());
    }

    #[test]
    fn an_empty_file_is_an_empty_table() {
        assert_eq!(yaml("").unwrap().value, Value::Table(vec![]));
        assert_eq!(toml("").unwrap().value, Value::Table(vec![]));
    }
}
