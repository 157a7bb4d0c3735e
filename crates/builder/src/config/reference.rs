//! `docs/reference/config.md`, printed from the table of keys.

use std::fmt::Write as _;

use super::key::Effect;
use super::{Form, keys};

/// The reference page of all config keys, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Config keys\n\n\
         <!-- Printed from the table in crates/builder/src/config/keys.rs; a test compares the two. -->\n\n\
         An app's folder holds `main.py`, or a web server that `[cerebrium.runtime.custom]` starts, and one config\n\
         file: `cerebrium.toml`, or the `config.yaml` of 2023.\n\
         A key that is not listed here, or that has no effect, gives a warning with its line; a value that cannot\n\
         be meant stops the deploy with file, line, key and what to write instead.\n",
    );
    for (title, form) in [("cerebrium.toml", Form::TomlCurrent), ("config.yaml", Form::Yaml2023)] {
        let keys = keys::of(form);
        let _ = write!(page, "\n## {title}\n\n| key | value | default | meaning |\n|---|---|---|---|\n");
        for key in keys.iter().filter(|key| !key.effect.kind().is_empty()) {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                key.path,
                key.effect.kind(),
                if key.default.is_empty() { "—" } else { key.default },
                key.what
            );
        }
        let _ = write!(
            page,
            "\nRead, and without effect here:\n\n| key | meaning | what happens instead |\n|---|---|---|\n"
        );
        for key in keys {
            if let Effect::Warned(instead) = key.effect {
                let _ = writeln!(page, "| `{}` | {} | {instead} |", key.path, key.what);
            }
        }
        if keys.iter().any(|key| matches!(key.effect, Effect::Refused(_))) {
            let _ = write!(page, "\nRefused:\n\n| key | meaning | what to do |\n|---|---|---|\n");
            for key in keys {
                if let Effect::Refused(instead) = key.effect {
                    let _ = writeln!(page, "| `{}` | {} | {instead} |", key.path, key.what);
                }
            }
        }
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_the_table_in_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/config.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, super::reference()).unwrap();
        } else {
            assert_eq!(
                page,
                super::reference(),
                "run UPDATE_DOCS=1 cargo test -p postback-builder reference"
            );
        }
    }
}
