//! Bytecode of the runner, made once for each version of Python. A contained replica can write none beside the
//! runner and would compile it at every start.
//!
//! The interpreter is one of the machine's, before anything is installed: an environment's own may be what a stranger
//! has put there, and every replica trusts what is made here.

use std::path::Path;

use super::interpreter::Interpreter;
use crate::command::{Commands, Invocation, Stop};

/// Makes the bytecode unless it is there. Replicas start without it too, so a failure is only noted.
pub(super) async fn provide(commands: &Commands, runner: &Path, interpreter: &Interpreter, stop: &Stop) {
    match is_there(runner, interpreter) {
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => return tracing::warn!(%error, folder = %runner.display(), "the runner cannot be read"),
    }
    // By content: the files are written anew at each start of the server.
    let arguments = ["-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "."];
    let compile = Invocation {
        program: &interpreter.path,
        arguments: arguments.map(Into::into).to_vec(),
        folder: runner,
        environment: Vec::new(),
        strangers: None,
    };
    if let Err(error) = commands.answer(compile, stop).await {
        tracing::debug!(%error, "the runner's bytecode could not be made; replicas start without it");
    }
}

/// Whether each file of the runner has its bytecode for this version.
fn is_there(runner: &Path, interpreter: &Interpreter) -> std::io::Result<bool> {
    let (major, minor, _) = interpreter.version;
    for entry in std::fs::read_dir(runner)? {
        let path = entry?.path();
        if let (Some(stem), Some("py")) =
            (path.file_stem(), path.extension().and_then(|ending| ending.to_str()))
        {
            let compiled = format!("{}.cpython-{major}{minor}.pyc", stem.to_string_lossy());
            if !runner.join("__pycache__").join(compiled).is_file() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
