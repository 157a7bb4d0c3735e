//! `postback prebuilt`: models that ship ready to deploy.

use std::path::PathBuf;

use queue::AppName;

use super::{Context, ExitStatus, deploy};
use crate::embedded::{self, Prebuilt};
use crate::print::WithHint;

const README: &str = "README.md";
const SAMPLE: &str = "sample.json";

/// Arguments of `postback prebuilt`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the models
    List,
    /// Show what a model takes and answers, and its licences
    #[command(visible_alias = "get")]
    Show {
        /// Name of the model
        model: String,
        /// Print a request that it can be tried with, and nothing else
        #[arg(long)]
        sample: bool,
    },
    /// Deploy a model
    Deploy {
        /// Name of the model
        model: String,
        /// Name of the app [default: the model's]
        #[arg(long, value_name = "NAME")]
        name: Option<AppName>,
    },
    /// Write a model's files into a folder, to change and deploy them as any other app
    Copy {
        /// Name of the model
        model: String,
        /// Folder to write into [default: the model's name]
        folder: Option<PathBuf>,
    },
}

/// Lists, shows, deploys or copies.
///
/// # Errors
/// When there is no such model, or the server refuses it.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let printer = context.printer;
    match args.action.unwrap_or(Action::List) {
        Action::List => {
            let models = embedded::prebuilt_models().filter_map(Prebuilt::of);
            let models: Vec<_> = models.map(|model| (model.name, summary(model))).collect();
            if printer.wants_json() {
                let list =
                    models.iter().map(|(name, about)| serde_json::json!({"name": name, "about": about}));
                printer.json(&list.collect());
            } else {
                let rows: Vec<_> =
                    models.iter().map(|(name, about)| vec![(*name).to_owned(), about.clone()]).collect();
                printer.table(&["MODEL", "WHAT IT DOES"], &rows);
                printer.hint(
                    "`postback prebuilt show MODEL` says more, `postback prebuilt deploy MODEL` deploys it",
                );
            }
        }
        Action::Show { model, sample } => {
            let model = find(&model)?;
            let (readme, request) = (text(model, README), text(model, SAMPLE));
            if printer.wants_json() {
                let request: serde_json::Value = serde_json::from_str(request)?;
                printer.json(&serde_json::json!({"name": model.name, "readme": readme, "sample": request}));
            } else {
                printer.data(if sample { request.trim_end() } else { readme.trim_end() });
            }
        }
        Action::Deploy { model, name } => {
            let model = find(&model)?;
            let folder = tempfile::Builder::new().prefix("postback-").tempdir()?;
            model.unpack(folder.path())?;
            let name = name.map_or_else(|| model.name.to_owned(), |name| name.as_str().to_owned());
            let deployed = deploy::run(deploy::Args::of(folder.path(), &name), context).await?;
            if deployed == ExitStatus::Success {
                let sample = format!("postback prebuilt show {} --sample > sample.json", model.name);
                printer.hint(&format!("{sample} && postback call {name} --data @sample.json"));
            }
            return Ok(deployed);
        }
        Action::Copy { model, folder } => {
            let model = find(&model)?;
            let folder = folder.unwrap_or_else(|| model.name.into());
            if std::fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some()) {
                let message = format!("the folder `{}` is not empty", folder.display());
                return Err(
                    WithHint::new(message, "name another: `postback prebuilt copy MODEL my-model`").into()
                );
            }
            model.unpack(&folder)?;
            printer.done(&format!("wrote {} into {}", model.name, folder.display()));
            printer.hint(&format!("cd {} && postback deploy", folder.display()));
        }
    }
    Ok(ExitStatus::Success)
}

fn find(name: &str) -> anyhow::Result<Prebuilt> {
    Prebuilt::of(name).ok_or_else(|| {
        let names: Vec<_> = embedded::prebuilt_models().collect();
        let message = format!("there is no pre-built model `{name}`");
        WithHint::new(message, format!("there are {}", names.join(", "))).into()
    })
}

fn text(model: Prebuilt, file: &str) -> &'static str {
    model.file(file).expect("a test sees to it that every model has it")
}

/// The first sentence of its page.
fn summary(model: Prebuilt) -> String {
    let page = text(model, README);
    let paragraph = page.split("\n\n").find(|part| !part.starts_with('#')).unwrap_or_default();
    let sentence = paragraph.split_once(". ").map_or(paragraph, |(first, _)| first);
    sentence.trim_end_matches('.').replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_is_whole() {
        for name in embedded::prebuilt_models() {
            let model = Prebuilt::of(name).unwrap();
            assert!(name.parse::<AppName>().is_ok());
            let page = text(model, README);
            assert!(page.starts_with(&format!("# {name}\n\n")), "{name}");
            for part in ["## Input", "## Answer", "## Licences", "curl -X POST", "postback prebuilt deploy"] {
                assert!(page.contains(part), "{name}: no `{part}`");
            }
            let summary = summary(model);
            assert!((20..110).contains(&summary.len()), "{summary}");
            let sample: serde_json::Value = serde_json::from_str(text(model, SAMPLE)).unwrap();
            assert!(sample.is_object(), "{name}");
            let folder = tempfile::tempdir().unwrap();
            model.unpack(folder.path()).unwrap();
            let config = builder::Config::read(folder.path(), "cerebrium.toml").unwrap();
            assert_eq!((config.warnings, config.name.as_deref()), (vec![], Some(name)));
            assert!(config.app.returns.is_some(), "{name}");
            assert!(text(model, "main.py").contains("def predict(item, run_id, logger)"), "{name}");
        }
        assert!(embedded::prebuilt_models().count() >= 5);
    }
}
