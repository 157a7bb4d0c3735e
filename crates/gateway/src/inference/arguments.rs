//! Whether the keys of a body fit the parameters of the function they call.

use std::fmt::Write as _;

use queue::app::{Contract, Function};

use crate::problem::{Answer, Problem, clip};
use crate::scan::is_platform_key;

/// How many unknown keys a message names.
const NAMED_MAX: usize = 10;

/// The keys of one body, held against one function.
pub(crate) struct Arguments<'f> {
    function: &'f Function,
    /// For each parameter, whether its key is there.
    given: Vec<bool>,
    unknown: Vec<String>,
}

impl<'f> Arguments<'f> {
    pub(crate) fn of(function: &'f Function) -> Self {
        let checked = if function.contract == Contract::Keywords { function.parameters.len() } else { 0 };
        Self { function, given: vec![false; checked], unknown: Vec::new() }
    }

    /// Notes a key of the body.
    pub(crate) fn note(&mut self, key: &str) {
        if self.function.contract != Contract::Keywords {
            return;
        }
        match self.function.parameters.iter().position(|parameter| parameter.name == key) {
            Some(index) => self.given[index] = true,
            None if self.function.takes_any || is_platform_key(key) => {}
            None if self.unknown.len() < NAMED_MAX => self.unknown.push(clip(key).to_owned()),
            None => {}
        }
    }

    /// 422 when something is missing or unknown.
    pub(crate) fn check(&self) -> Answer<()> {
        let parameters = &self.function.parameters;
        let is_missing = |(parameter, given): (&queue::app::Parameter, &bool)| parameter.required && !given;
        let missing = parameters.iter().zip(&self.given).any(is_missing);
        if !missing && self.unknown.is_empty() {
            return Ok(());
        }
        let name = &self.function.name;
        let mut message = String::new();
        if missing {
            let names = parameters.iter().zip(&self.given).filter(|pair| is_missing(*pair));
            let names = list(names.map(|(parameter, _)| parameter.name.as_str()));
            let _ = write!(message, "the body lacks {names}, which `{name}` requires; ");
        }
        if !self.unknown.is_empty() {
            let names = list(self.unknown.iter().map(String::as_str));
            let _ = write!(message, "the body has {names}, which `{name}` does not take; ");
        }
        if parameters.is_empty() {
            let _ = write!(message, "`{name}` takes no parameters");
        } else {
            let known = list(parameters.iter().map(|parameter| parameter.name.as_str()));
            let _ = write!(message, "its parameters are {known}");
        }
        let code = if missing { "missing_parameters" } else { "unknown_parameters" };
        Err(Problem::unprocessable(code, message))
    }
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut text = String::new();
    for name in names {
        let lead = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{lead}`{name}`");
    }
    text
}

#[cfg(test)]
mod tests {
    use queue::app::Parameter;

    use super::*;

    fn run(takes_any: bool) -> Function {
        let parameter = |name: &str, required| Parameter { name: name.into(), required };
        Function {
            name: "run".into(),
            contract: Contract::Keywords,
            parameters: vec![parameter("prompt", true), parameter("steps", false), parameter("seed", true)],
            takes_any,
            streams: false,
        }
    }

    fn check(function: &Function, keys: &[&str]) -> Result<(), (u16, String, String)> {
        let mut arguments = Arguments::of(function);
        keys.iter().for_each(|key| arguments.note(key));
        arguments.check().map_err(|problem| {
            (problem.status.as_u16(), problem.code.into_owned(), problem.message.into_owned())
        })
    }

    #[test]
    fn what_is_missing_is_named() {
        let (status, code, message) = check(&run(false), &["steps", "seed"]).unwrap_err();
        assert_eq!((status, code.as_str()), (422, "missing_parameters"));
        assert_eq!(
            message,
            "the body lacks `prompt`, which `run` requires; its parameters are `prompt`, `steps`, `seed`"
        );
    }

    #[test]
    fn what_is_unknown_is_named_unless_the_function_takes_anything() {
        let keys = ["prompt", "seed", "promt"];
        let (status, code, message) = check(&run(false), &keys).unwrap_err();
        assert_eq!((status, code.as_str()), (422, "unknown_parameters"));
        assert!(message.starts_with("the body has `promt`, which `run` does not take; its parameters are"));
        assert_eq!(check(&run(true), &keys), Ok(()));
    }

    #[test]
    fn platform_keys_are_welcome_everywhere() {
        assert_eq!(
            check(&run(false), &["prompt", "seed", "webhook_endpoint", "webhook_metadata", "run_id"]),
            Ok(())
        );
    }

    #[test]
    fn a_function_of_2023_and_one_with_a_model_take_the_body_as_it_is() {
        for contract in [Contract::Item, Contract::Model] {
            let function = Function { contract, ..run(false) };
            assert_eq!(check(&function, &["whatever"]), Ok(()));
        }
    }
}
