//! Which server a command talks to, and with which key.
//!
//! Order: flag, environment, saved profile (`postback login`), `credentials.json` of the data
//! directory. The project follows from the key. No key is told to a server that it may not be for.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::credentials;
use crate::print::WithHint;

/// Where a server listens unless told otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:4100";

/// A server and a key to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) url: String,
    pub(crate) api_key: String,
    /// Follows from the key when it is not given.
    #[serde(default)]
    pub(crate) project: Option<String>,
}

/// What flags and environment say; clap has merged the two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub(crate) url: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) project: Option<String>,
}

/// The data directory of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here<'a> {
    pub(crate) data_dir: &'a Path,
    /// Somebody named it, and so means the server on it, wherever that is reached.
    pub(crate) named: bool,
}

/// Puts the four sources together.
///
/// # Errors
/// When none of them has a key for the server.
pub(crate) fn resolve(given: Given, saved: Option<Profile>, here: Here<'_>) -> anyhow::Result<Profile> {
    let saved_url = saved.as_ref().map(|profile| profile.url.clone());
    let url = given.url.or(saved_url).unwrap_or_else(|| DEFAULT_URL.to_owned());
    let url = url.trim_end_matches('/').to_owned();
    check_url(&url)?;
    if let Some(api_key) = given.api_key {
        return Ok(Profile { url, api_key, project: given.project });
    }
    // A saved key goes only to the server it was saved for.
    if let Some(saved) = saved.filter(|saved| saved.url.trim_end_matches('/') == url) {
        return Ok(Profile { url, api_key: saved.api_key, project: given.project.or(saved.project) });
    }
    if !here.named && !is_this_machine(&url) {
        return Err(WithHint::new(
            format!("no key for {url}: this machine's own is told to no other one"),
            "give the key of that server with `--api-key` or `postback login`; or, if the server of this machine \
             answers there, name its directory with `--data-dir`",
        )
        .into());
    }
    let found = credentials::read(here.data_dir)?.ok_or_else(|| {
        let path = credentials::path(here.data_dir);
        WithHint::new(
            format!("no key: there is no saved profile and no `{}`", path.display()),
            "start a server on this machine with `postback serve`, or save a key with `postback login`",
        )
    })?;
    let project = given.project.unwrap_or_else(|| found.project_id.to_string());
    Ok(Profile { url, api_key: found.private_key, project: Some(project) })
}

/// Refuses what is no address of a server.
///
/// # Errors
/// With how to write one.
pub(crate) fn check_url(url: &str) -> anyhow::Result<()> {
    if Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
        return Ok(());
    }
    let hint = "write it with its scheme, such as http://127.0.0.1:4100, in `--url` or POSTBACK_URL";
    Err(WithHint::new(format!("`{url}` is no address of a server"), hint).into())
}

/// Whether only a server of this machine can answer at the address.
fn is_this_machine(url: &str) -> bool {
    match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
        None => false,
    }
}

/// `$XDG_CONFIG_HOME/postback/profile.json`
///
/// # Errors
/// When there is no home directory.
pub(crate) fn saved_path() -> anyhow::Result<PathBuf> {
    let base = etcetera::choose_base_strategy().context("this user has no home directory")?;
    Ok(base.config_dir().join("postback").join("profile.json"))
}

/// The profile that `postback login` saved, if any.
///
/// # Errors
/// When it is there and cannot be read.
pub(crate) fn saved() -> anyhow::Result<Option<Profile>> {
    let path = saved_path()?;
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let profile = serde_json::from_str(&text).map_err(|_| {
                WithHint::new(
                    format!("`{}` is damaged", path.display()),
                    "write it anew with `postback login`",
                )
            })?;
            Ok(Some(profile))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    }
}

/// Saves a profile, readable by its owner only.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn save(profile: &Profile) -> anyhow::Result<PathBuf> {
    use std::io::Write as _;
    let path = saved_path()?;
    let folder = path.parent().context("the profile lies in a folder")?;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .tempfile_in(folder)?;
        serde_json::to_writer_pretty(&mut file, profile)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("failed to write `{}`", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Here<'static> {
        Here { data_dir: Path::new("/nowhere"), named: false }
    }

    fn saved_profile() -> Profile {
        Profile { url: "http://saved".into(), api_key: "private-saved".into(), project: Some("p-1".into()) }
    }

    #[test]
    fn what_is_given_wins_over_what_is_saved() {
        let given = Given { url: Some("http://given/".into()), api_key: Some("k".into()), project: None };
        let profile = resolve(given, Some(saved_profile()), nowhere()).unwrap();
        assert_eq!(profile, Profile { url: "http://given".into(), api_key: "k".into(), project: None });
        let profile = resolve(Given::default(), Some(saved_profile()), nowhere()).unwrap();
        assert_eq!(profile, saved_profile());
    }

    #[test]
    fn a_saved_key_is_not_told_to_another_server() {
        let given = Given { url: Some("http://other".into()), ..Given::default() };
        assert!(resolve(given, Some(saved_profile()), nowhere()).is_err());
    }

    #[test]
    fn the_key_of_this_machine_is_not_told_to_another_one() {
        let home = tempfile::tempdir().unwrap();
        let keys = serde_json::json!({
            "project_id": "p-11111111", "public_key": "public-1", "private_key": "private-1",
            "service_account_token": "t", "webhook_secret": "whsec_",
        });
        std::fs::write(credentials::path(home.path()), keys.to_string()).unwrap();
        let key = |url: &str, named| {
            let given = Given { url: Some(url.into()), ..Given::default() };
            resolve(given, None, Here { data_dir: home.path(), named }).map(|profile| profile.api_key)
        };
        for url in [DEFAULT_URL, "http://localhost:1", "http://[::1]:4100/", "http://0.0.0.0:4100"] {
            assert_eq!(key(url, false).unwrap(), "private-1", "{url}");
        }
        for url in ["http://192.168.0.7:4100", "https://models.example", "http://localhost.evil.example"] {
            assert!(key(url, false).unwrap_err().to_string().contains("no key for"), "{url}");
            assert_eq!(key(url, true).unwrap(), "private-1", "{url}");
        }
        for url in ["nothing", "localhost:4100", "ftp://127.0.0.1"] {
            assert!(key(url, false).unwrap_err().to_string().contains("is no address of a server"), "{url}");
        }
    }

    #[test]
    fn without_a_key_the_error_says_where_to_get_one() {
        let error = resolve(Given::default(), None, nowhere()).unwrap_err();
        assert!(error.to_string().contains("credentials.json"), "{error}");
    }
}
