//! What the machine's pip was told about indexes, proxies and certificates, in the words of uv, which
//! reads none of pip's settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// Settings of pip, by their names without a section: `index-url`, `cert`, …
pub(crate) type Settings = BTreeMap<String, String>;

/// Reads the output of `pip config list`: lines such as `global.index-url='https://…'`.
///
/// pip prints them in the order in which later ones win: files, then `:env:`.
pub(crate) fn settings(listing: &str) -> Settings {
    let mut settings = Settings::new();
    let mut in_environment = Settings::new();
    for line in listing.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let value = value
            .strip_prefix('\'')
            .and_then(|value| value.strip_suffix('\''))
            .or_else(|| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')))
            .unwrap_or(value)
            .replace("\\n", "\n");
        if let Some(name) = key.strip_prefix(":env:.") {
            in_environment.insert(name.to_owned(), value);
        } else if let Some(name) = key.strip_prefix("global.").or_else(|| key.strip_prefix("install.")) {
            settings.insert(name.to_owned(), value);
        }
    }
    settings.extend(in_environment);
    settings
}

/// The environment that makes uv do what pip would. What is set for uv already is left alone.
pub(crate) fn for_uv(settings: &Settings, environment: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let known = |name: &str| {
        environment
            .iter()
            .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_empty())
            .map(|(_, value)| value)
    };
    let mut handed: Vec<(OsString, OsString)> = Vec::new();
    let mut hand = |name: &str, value: OsString| {
        if known(name).is_none() && !value.is_empty() {
            handed.push((name.into(), value));
        }
    };
    let get = |name: &str| settings.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let words = |value: &str| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();

    if let Some(index) = get("index-url").or_else(|| get("index")) {
        hand("UV_DEFAULT_INDEX", index.into());
    }
    if let Some(extra) = get("extra-index-url") {
        hand("UV_INDEX", words(extra).join(" ").into());
        // pip takes the best version of all indexes; uv would stop at the first that has the package.
        hand("UV_INDEX_STRATEGY", "unsafe-best-match".into());
    }
    if let Some(places) = get("find-links") {
        // uv refuses to run where pip only warns of a folder that is not there.
        let there = |place: &String| place.contains("://") || Path::new(place).exists();
        hand("UV_FIND_LINKS", words(places).into_iter().filter(there).collect::<Vec<_>>().join(",").into());
    }
    if let Some(hosts) = get("trusted-host") {
        hand("UV_INSECURE_HOST", words(hosts).join(" ").into());
    }
    if let Some(seconds) = get("default-timeout").or_else(|| get("timeout")) {
        hand("UV_HTTP_TIMEOUT", seconds.into());
    }
    if get("no-index").is_some_and(|value| !matches!(value, "0" | "false" | "no" | "off")) {
        hand("UV_NO_INDEX", "1".into());
    }
    if let Some(proxy) = get("proxy") {
        hand("HTTPS_PROXY", proxy.into());
        hand("HTTP_PROXY", proxy.into());
    }
    let certificates = get("cert").map(OsString::from);
    if let Some(file) =
        certificates.or_else(|| known("REQUESTS_CA_BUNDLE").or_else(|| known("CURL_CA_BUNDLE")).cloned())
    {
        hand("SSL_CERT_FILE", file);
    }
    // pip trusts what the system trusts. The second name is that of uv before 0.9.
    hand("UV_SYSTEM_CERTS", "true".into());
    hand("UV_NATIVE_TLS", "true".into());
    handed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(listing: &str, environment: &[(&str, &str)]) -> Vec<(String, String)> {
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        for_uv(&settings(listing), &environment)
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .filter(|(name, _)| name != "UV_SYSTEM_CERTS" && name != "UV_NATIVE_TLS")
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn what_pip_was_told_uv_is_told() {
        let listing = "global.cert='/etc/ssl/ca.pem'\nglobal.index-url='https://mirror/simple'\n\
            global.extra-index-url='https://a/simple\\nhttps://b/simple'\nglobal.proxy='http://proxy:3128'\n\
            install.trusted-host='mirror'\n:env:.default-timeout='180'\n";
        assert_eq!(
            handed(listing, &[]),
            pairs(&[
                ("UV_DEFAULT_INDEX", "https://mirror/simple"),
                ("UV_INDEX", "https://a/simple https://b/simple"),
                ("UV_INDEX_STRATEGY", "unsafe-best-match"),
                ("UV_INSECURE_HOST", "mirror"),
                ("UV_HTTP_TIMEOUT", "180"),
                ("HTTPS_PROXY", "http://proxy:3128"),
                ("HTTP_PROXY", "http://proxy:3128"),
                ("SSL_CERT_FILE", "/etc/ssl/ca.pem"),
            ])
        );
    }

    #[test]
    fn the_environment_wins_over_files_and_uv_over_pip() {
        let listing = ":env:.index-url='https://env'\nglobal.index-url='https://file'\n";
        assert_eq!(handed(listing, &[]), pairs(&[("UV_DEFAULT_INDEX", "https://env")]));
        assert_eq!(handed(listing, &[("UV_DEFAULT_INDEX", "https://uv")]), []);
        assert_eq!(handed("global.proxy='http://p'", &[("https_proxy", "x"), ("http_proxy", "x")]), []);
    }

    #[test]
    fn folders_of_wheels_that_are_not_there_are_not_handed_over() {
        let listing = ":env:.find-links='/nonexistent/wheels https://wheels/'\n";
        assert_eq!(handed(listing, &[]), pairs(&[("UV_FIND_LINKS", "https://wheels/")]));
        assert_eq!(handed(":env:.find-links='/nonexistent/wheels'\n", &[]), []);
    }

    #[test]
    fn certificates_named_for_other_tools_are_used() {
        assert_eq!(handed("", &[("REQUESTS_CA_BUNDLE", "/ca.pem")]), pairs(&[("SSL_CERT_FILE", "/ca.pem")]));
    }
}
