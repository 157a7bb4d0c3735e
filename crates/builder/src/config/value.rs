//! Values: from the source's text to what a key's kind asks for, or what to write instead.

use queue::hardware;
use queue::rerun::RetryOn;
use queue::scaling::{Balancing, Metric};
use queue::web::Entrypoint;
use queue::webhook::{EventFilter, Schedule, WebhookHeaders};

use super::Config;
use super::document::{Node, Value};
use super::key::{Effect, either};

/// A step that puts a checked value into its place.
type Set = Box<dyn FnOnce(&mut Config)>;

/// Checks a value against the key's kind.
pub(super) fn apply(effect: &Effect, node: &Node) -> Result<Set, String> {
    Ok(match *effect {
        Effect::Text(set) => {
            let value = text(node)?;
            Box::new(move |config| set(config, value))
        }
        Effect::PythonVersion(set) => {
            let value = python_version(&text(node)?)?;
            Box::new(move |config| set(config, value))
        }
        Effect::Flag(set) => {
            let value = flag(node)?;
            Box::new(move |config| set(config, value))
        }
        Effect::Whole { min, max, set } => {
            let value = number(node, |text| text.parse().ok(), min, max, "a whole number")?;
            Box::new(move |config| set(config, value))
        }
        Effect::Number { min, max, set } => {
            let value = number(node, |text| text.parse().ok(), min, max, "a number")?;
            Box::new(move |config| set(config, value))
        }
        Effect::List(set) => {
            let value = texts(node)?;
            Box::new(move |config| set(config, value))
        }
        Effect::Entrypoint(set) => {
            let value = entrypoint(node)?;
            Box::new(move |config| set(config, value))
        }
        Effect::Path(set) => {
            let value = path(&text(node)?)?;
            Box::new(move |config| set(config, value))
        }
        Effect::RetryOn(set) => {
            let words = texts(node)?;
            let value = RetryOn::of(words.iter().map(String::as_str))
                .map_err(|error| format!("is wrong: {error}"))?;
            Box::new(move |config| set(config, value))
        }
        Effect::Patterns(set) => {
            let value = patterns(node)?;
            Box::new(move |config| set(config, value))
        }
        Effect::Compute(set) => {
            let value = compute(node)?;
            Box::new(move |config| set(config, value))
        }
        Effect::Metric(set) => {
            let word = text(node)?;
            let value = Metric::named(&word).ok_or_else(|| {
                format!("is `{word}`; write one of {}", either(Metric::ALL.map(Metric::as_str)))
            })?;
            Box::new(move |config| set(config, value))
        }
        Effect::Balancing(set) => {
            let word = text(node)?;
            // Nothing stands for the server's own choice.
            let value = (!word.is_empty())
                .then(|| {
                    let known = either(Balancing::ALL.map(Balancing::as_str));
                    Balancing::named(&word).ok_or_else(|| format!("is `{word}`; write one of {known}"))
                })
                .transpose()?;
            Box::new(move |config| set(config, value))
        }
        Effect::Headers(set) => {
            let value = headers(node)?;
            Box::new(move |config| set(config, value))
        }
        Effect::Events(set) => {
            let words = texts(node)?;
            let value =
                EventFilter::parse(words.iter().map(String::as_str)).map_err(|why| why.to_string())?;
            Box::new(move |config| set(config, value))
        }
        Effect::Waits(set) => {
            let steps = texts(node)?;
            let value = Schedule::parse(steps.iter().map(String::as_str)).map_err(|why| why.to_string())?;
            Box::new(move |config| set(config, value))
        }
        Effect::Packages { .. } | Effect::PackageFile(_) | Effect::Warned(_) | Effect::Refused(_) => {
            Box::new(|_| ())
        }
    })
}

/// Any scalar, as text.
pub(super) fn text(node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Text { text, .. } => Ok(text.clone()),
        other => Err(format!("must be a text, but is {}", name_of(other))),
    }
}

fn texts(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::List(items) => items.iter().map(text).collect(),
        // One command where several are allowed: what people write first.
        Value::Text { text, .. } => Ok(vec![text.clone()]),
        other => Err(format!("must be a list of texts, but is {}", name_of(other))),
    }
}

fn headers(node: &Node) -> Result<WebhookHeaders, String> {
    let Value::Table(entries) = &node.value else {
        return Err(format!("must be a table `name = \"value\"`, but is {}", name_of(&node.value)));
    };
    let pairs = entries.iter().map(|entry| Ok((entry.key.clone(), text(&entry.node)?)));
    WebhookHeaders::new(pairs.collect::<Result<_, String>>()?).map_err(|why| why.to_string())
}

fn entrypoint(node: &Node) -> Result<Entrypoint, String> {
    let entrypoint = match &node.value {
        Value::Text { text, .. } => Entrypoint::Line(text.clone()),
        _ => Entrypoint::Words(texts(node)?),
    };
    if entrypoint.is_empty() {
        return Err(
            "is empty; write what starts the server, such as `uvicorn main:app --port 8000`".to_owned()
        );
    }
    Ok(entrypoint)
}

/// An empty text stands for none.
fn path(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    let is_plain = |c: char| c.is_ascii_graphic() && c != '#';
    if text.is_empty() {
        Ok(None)
    } else if text.len() <= 1_024 && !text.contains("://") && text.chars().all(is_plain) {
        Ok(Some(format!("/{}", text.trim_start_matches('/'))))
    } else {
        Err(format!("is `{text}`; write a path of the server, such as `/health`"))
    }
}

fn flag(node: &Node) -> Result<bool, String> {
    match text(node)?.as_str() {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        other => Err(format!("is `{other}`; write `true` or `false`")),
    }
}

fn number<T: Copy + PartialOrd + std::fmt::Display>(
    node: &Node,
    parse: fn(&str) -> Option<T>,
    min: T,
    max: T,
    what: &str,
) -> Result<T, String> {
    let text = text(node)?;
    match parse(text.strip_suffix(".0").filter(|_| what != "a number").unwrap_or(&text)) {
        Some(value) if value >= min && value <= max => Ok(value),
        _ => Err(format!("is `{text}`; write {what} from {min} to {max}")),
    }
}

/// `[./*, main.py]` in one string, as in 2023, or a list.
fn patterns(node: &Node) -> Result<Vec<String>, String> {
    let patterns: Vec<String> = match &node.value {
        Value::Text { text, .. } => text
            .trim()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .split(',')
            .map(|pattern| pattern.trim().trim_matches(['\'', '"']).to_owned())
            .filter(|pattern| !pattern.is_empty())
            .collect(),
        _ => texts(node)?,
    };
    for pattern in &patterns {
        if pattern.starts_with('/') {
            return Err(format!(
                "has the pattern `{pattern}`; patterns are relative to the app's folder, remove the first `/`"
            ));
        }
        crate::archive::check_pattern(pattern)?;
    }
    Ok(patterns)
}

fn python_version(text: &str) -> Result<String, String> {
    let version = text.trim();
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(3)), Some(Ok(minor)), None | Some(Ok(_)), None) if minor >= 8 => Ok(version.to_owned()),
        (Some(Ok(3)), Some(Ok(1)), None, _) => {
            Err("is `3.1`; did you mean `3.10`? Python 3.8 or later is needed".to_owned())
        }
        (Some(Ok(_)), ..) => {
            Err(format!("is `{version}`; Python 3.8 or later is needed, write it as `3.11`"))
        }
        _ => Err(format!("is `{version}`; write a version such as `3.11`")),
    }
}

fn compute(node: &Node) -> Result<Vec<String>, String> {
    let ids = texts(node)?;
    if ids.is_empty() || ids.len() > 5 {
        return Err(format!("names {} kinds of hardware; write 1 to 5", ids.len()));
    }
    ids.into_iter()
        .map(|id| {
            let id = id.trim().to_ascii_uppercase();
            // What this machine has decides at deploy; here it is about spelling.
            if id.starts_with(hardware::OWN_NAME) || hardware::compute_names().any(|known| known == id) {
                return Ok(id);
            }
            let nearest = hardware::compute_names()
                .max_by(|a, b| strsim::jaro_winkler(a, &id).total_cmp(&strsim::jaro_winkler(b, &id)))
                .unwrap_or("CPU");
            Err(format!("is `{id}`, which no hardware is called; did you mean `{nearest}`?"))
        })
        .collect()
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Text { .. } => "a text",
        Value::List(_) => "a list",
        Value::Table(_) => "a table",
    }
}
