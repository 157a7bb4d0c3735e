//! Embeds the runner, the delay example and the pre-built models, so that the binary is all a user needs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let mut code = String::new();
    for (name, folder) in [("RUNNER", "runner"), ("DELAY_EXAMPLE", "examples/delay")] {
        writeln!(
            code,
            "/// Files of `{name}`: path and content.\npub(crate) const {name}: &[(&str, &str)] = &{};",
            listed(&root.join(folder))?
        )
        .expect("writing to a string cannot fail");
    }
    let prebuilt = root.join("prebuilt");
    println!("cargo::rerun-if-changed={}", prebuilt.display());
    let mut models: Vec<_> = fs::read_dir(&prebuilt)?.collect::<io::Result<_>>()?;
    models.sort_by_key(fs::DirEntry::file_name);
    code.push_str("/// Name and files of each pre-built model.\npub(crate) const PREBUILT: &[(&str, &[(&str, &str)])] = &[\n");
    for model in models.iter().filter(|model| model.path().is_dir()) {
        let name = model.file_name();
        writeln!(code, "({:?}, &{}),", name.to_string_lossy(), listed(&model.path())?)
            .expect("writing to a string cannot fail");
    }
    code.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("embedded.rs"), code)
}

/// The files of a folder, as the source of a list of path and content.
fn listed(folder: &Path) -> io::Result<String> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let mut list = String::from("[\n");
    for file in files {
        let path =
            file.strip_prefix(folder).expect("collected below it").to_string_lossy().replace('\\', "/");
        writeln!(list, "    ({path:?}, include_str!({file:?})),").expect("writing to a string cannot fail");
    }
    list.push(']');
    Ok(list)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !matches!(name.as_str(), "tests" | "__pycache__") && !name.starts_with('.') {
                collect(&path, files)?;
            }
        } else if matches!(
            path.extension().and_then(|e| e.to_str()),
            Some("py" | "yaml" | "toml" | "md" | "json")
        ) {
            files.push(path);
        }
    }
    Ok(())
}
