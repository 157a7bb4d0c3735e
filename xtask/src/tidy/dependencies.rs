//! Licences, sources and bans of everything we link.

use cargo_metadata::Metadata;

/// A package from outside the workspace.
#[derive(Debug, Clone)]
pub(super) struct Dependency {
    name: String,
    version: String,
    licence: Option<String>,
    source: Option<String>,
}

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Licences that ask for no more than their own text.
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not come in, and why.
const BANS: [(&str, &str); 5] = [
    ("openssl-sys", "one TLS stack: rustls"),
    ("native-tls", "one TLS stack: rustls"),
    ("aws-lc-rs", "one crypto provider for rustls: ring"),
    ("sqlx", "the store uses rusqlite; the two cannot link the same SQLite"),
    ("chrono", "one time crate: jiff"),
];

/// Everything that the workspace resolves to, but the workspace itself.
pub(super) fn of(metadata: &Metadata) -> Vec<Dependency> {
    metadata
        .packages
        .iter()
        .filter(|package| !metadata.workspace_members.contains(&package.id))
        .map(|package| Dependency {
            name: package.name.to_string(),
            version: package.version.to_string(),
            licence: package.license.clone(),
            source: package.source.as_ref().map(|source| source.repr.clone()),
        })
        .collect()
}

fn licence_allowed(expression: &str) -> bool {
    // Some manifests still separate alternatives with a slash.
    let expression = expression.replace('/', " OR ");
    spdx::Expression::parse(&expression).is_ok_and(|parsed| {
        parsed.evaluate(|requirement| LICENCES.contains(&requirement.to_string().as_str()))
    })
}

/// The dependencies that break a rule.
pub(super) fn check(dependencies: &[Dependency]) -> Vec<String> {
    let mut findings = Vec::new();
    for Dependency { name, version, licence, source } in dependencies {
        match licence.as_deref() {
            None => findings.push(format!("{name} {version} names no licence")),
            Some(licence) if !licence_allowed(licence) => {
                findings
                    .push(format!("{name} {version} has the licence `{licence}`, which is not on our list"));
            }
            Some(_) => {}
        }
        if source.as_deref() != Some(CRATES_IO) {
            findings.push(format!("{name} {version} does not come from crates.io: {source:?}"));
        }
        if let Some((_, why)) = BANS.iter().find(|(banned, _)| banned == name) {
            findings.push(format!("{name} {version} is banned: {why}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependency(name: &str, licence: Option<&str>, source: Option<&str>) -> Dependency {
        Dependency {
            name: name.into(),
            version: "1.0.0".into(),
            licence: licence.map(Into::into),
            source: source.map(Into::into),
        }
    }

    #[test]
    fn good_ones_pass_and_each_rule_finds_its_case() {
        let findings = |dependency| check(&[dependency]).len();
        assert_eq!(findings(dependency("a", Some("MIT/Apache-2.0"), Some(CRATES_IO))), 0);
        assert_eq!(findings(dependency("a", Some("GPL-3.0-only OR MIT"), Some(CRATES_IO))), 0);
        assert_eq!(findings(dependency("a", Some("GPL-3.0-only"), Some(CRATES_IO))), 1);
        assert_eq!(findings(dependency("a", None, Some(CRATES_IO))), 1);
        assert_eq!(findings(dependency("a", Some("MIT"), Some("git+https://example.com/a"))), 1);
        assert_eq!(findings(dependency("native-tls", Some("MIT"), Some(CRATES_IO))), 1);
    }
}
