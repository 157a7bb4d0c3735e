//! What a data directory that no server has open looks like from outside.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;

/// What is wrong with the files below a data directory after a clean look at it by a server: what
/// [`integrity`] says, and results that no row points at.
///
/// # Panics
/// When they cannot be read at all.
pub fn damage(data_dir: &Path) -> Vec<String> {
    let mut damage = integrity(data_dir);
    if damage.is_empty() {
        let (rows, files) = results(data_dir);
        damage.extend(files.difference(&rows).map(|name| format!("results/{name} belongs to no run")));
    }
    damage
}

/// What must not be at any moment, a crash a moment ago included: databases that SQLite calls damaged,
/// rows without their parent, and rows whose file is not there.
///
/// # Panics
/// When they cannot be read at all.
pub fn integrity(data_dir: &Path) -> Vec<String> {
    let mut damage = Vec::new();
    for (name, pragmas) in
        [("postback.db", &["integrity_check", "foreign_key_check"][..]), ("logs.db", &["integrity_check"])]
    {
        let path = data_dir.join(name);
        if !path.exists() {
            damage.push(format!("{name} is not there"));
            continue;
        }
        for pragma in pragmas {
            let conn = Connection::open(&path).expect("the database opens");
            let said: Result<Vec<String>, rusqlite::Error> = conn
                .prepare(&format!("PRAGMA {pragma}"))
                .and_then(|mut check| check.query_map([], |row| row.get(0))?.collect());
            match said {
                Ok(lines) => damage.extend(
                    lines.iter().filter(|line| *line != "ok").map(|line| format!("{name}: {pragma}: {line}")),
                ),
                Err(error) => damage.push(format!("{name}: {pragma}: {error}")),
            }
        }
    }
    if damage.is_empty() {
        let (rows, files) = results(data_dir);
        damage.extend(rows.difference(&files).map(|name| format!("results/{name} is gone")));
    }
    damage
}

/// Results by the names of their files: those that the database knows, and those in the folder.
fn results(data_dir: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let conn = Connection::open(data_dir.join("postback.db")).expect("the database opens");
    let rows: BTreeSet<String> = conn
        .prepare("SELECT file FROM results WHERE file IS NOT NULL")
        .and_then(|mut select| select.query_map([], |row| row.get(0))?.collect())
        .expect("the database is whole");
    let files: BTreeSet<String> = std::fs::read_dir(data_dir.join("results"))
        .map(|entries| {
            entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
        })
        .unwrap_or_default();
    (rows, files)
}
