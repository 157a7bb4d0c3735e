//! Embeds the runner and the delay example, so that the binary is all a user needs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let mut code = String::new();
    for (name, folder) in [("RUNNER", "runner"), ("DELAY_EXAMPLE", "examples/delay")] {
        let folder = root.join(folder);
        let mut files = Vec::new();
        collect(&folder, &mut files)?;
        files.sort();
        writeln!(
            code,
            "/// Files of `{name}`: path and content.\npub(crate) const {name}: &[(&str, &str)] = &["
        )
        .expect("writing to a string cannot fail");
        for file in files {
            let path =
                file.strip_prefix(&folder).expect("collected below it").to_string_lossy().replace('\\', "/");
            writeln!(code, "    ({path:?}, include_str!({file:?})),")
                .expect("writing to a string cannot fail");
        }
        code.push_str("];\n");
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("embedded.rs"), code)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !matches!(name.as_str(), "tests" | "__pycache__") && !name.starts_with('.') {
                collect(&path, files)?;
            }
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("py" | "yaml" | "toml" | "md")) {
            files.push(path);
        }
    }
    Ok(())
}
