//! What every replica of an app finds in its environment, whatever its process is.

use queue::registry::Build;

use super::grants::storage_folder;
use crate::Options;
use crate::gpus::Given;

/// Who it is, and where it finds what outlives its replicas.
pub(crate) fn app_environment(options: &Options, build: &Build, gpus: &Given) -> Vec<(&'static str, String)> {
    let app = &build.app;
    let mut environment = vec![
        ("APP_NAME", app.name().as_str().to_owned()),
        ("PROJECT_ID", app.project().as_str().to_owned()),
        ("BUILD_ID", build.id.as_str().to_owned()),
    ];
    environment.extend(gpus.visible_devices().map(|devices| ("CUDA_VISIBLE_DEVICES", devices)));
    environment.extend(storage(options, build));
    environment
}

fn storage(options: &Options, build: &Build) -> Vec<(&'static str, String)> {
    let Some(storage) = storage_folder(options, build) else { return Vec::new() };
    let cache = storage.join(".cache/huggingface");
    let names = [("POSTBACK_PERSISTENT_STORAGE", storage), ("HF_HOME", cache)].into_iter();
    // Whoever started the server may keep such a cache of their own.
    let is_set = |name: &str| options.environment.iter().any(|(set, _)| set.to_str() == Some(name));
    names.filter(|(name, _)| !is_set(name)).map(|(name, path)| (name, path.display().to_string())).collect()
}
