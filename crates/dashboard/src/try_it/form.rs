//! The form of one function: made from its signature, filled in by people, turned into a request.

use std::borrow::Cow;

use askama::Template;
use pages::inert::visible;
use queue::AppId;
use queue::app::{Contract, Function};
use queue::inbox::Inbox;
use queue::run::EndpointUrl;
use serde::Deserialize;
use serde::de::IntoDeserializer as _;

use crate::answer::Answer;
use crate::code::{self, Code};
use crate::json;
use crate::sent::Sent;

/// The key of a body that asks for a webhook.
const WEBHOOK_ENDPOINT: &str = "webhook_endpoint";

/// Where the result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum To {
    /// To the page, which waits for it.
    Page,
    /// Nowhere: the run keeps it.
    Run,
    /// To an inbox made for it.
    Inbox,
    /// To addresses of the visitor's choice.
    Webhook,
}

/// One parameter.
#[derive(Debug)]
struct Field {
    name: String,
    shown: String,
    required: bool,
    value: String,
    /// What is wrong with the value.
    trouble: Option<String>,
}

impl Field {
    /// What is written, or `null` where something has to be; `None` when it is wrong.
    fn example(&self) -> Option<Option<Cow<'_, str>>> {
        let written = json::value(&self.value).ok()?;
        Some(written.or_else(|| self.required.then_some(Cow::Borrowed("null"))))
    }
}

/// The form, and below it what came of it.
#[derive(Debug, Template)]
#[template(path = "try-form.html")]
pub(crate) struct TryForm {
    pub(crate) action: String,
    /// Makes ids of one form differ from those of others on the page.
    pub(crate) id: String,
    fields: Vec<Field>,
    takes_any: bool,
    as_json: bool,
    json: String,
    pub(crate) to: To,
    webhook: String,
    webhook_trouble: Option<&'static str>,
    /// The inbox that was made for it, and its page.
    pub(crate) inbox: Option<String>,
    inbox_page: Option<String>,
    pub(crate) answer: Option<Answer>,
    pub(crate) code: Option<Code>,
}

impl TryForm {
    /// An empty one.
    pub(crate) fn of(app: &AppId, function: &Function) -> Self {
        let segment: String = url::form_urlencoded::byte_serialize(function.name.as_bytes()).collect();
        // Under the contract of 2023, and with a model, the parameters are not the body's keys.
        let named = function.parameters.iter().filter(|_| function.contract == Contract::Keywords);
        let fields: Vec<_> = named
            .map(|parameter| Field {
                name: parameter.name.clone(),
                shown: visible(&parameter.name).into_owned(),
                required: parameter.required,
                value: String::new(),
                trouble: None,
            })
            .collect();
        let sample = fields.iter().filter(|field| field.required).map(|field| (field.name.as_str(), "null"));
        let sample = json::object(sample);
        Self {
            action: format!("/dashboard/apps/{}/try/{segment}", app.name()),
            id: segment,
            json: pages::pretty(&sample, usize::MAX).unwrap_or(sample),
            as_json: fields.is_empty(),
            fields,
            takes_any: function.takes_any,
            to: To::Page,
            webhook: String::new(),
            webhook_trouble: None,
            inbox: None,
            inbox_page: None,
            answer: None,
            code: None,
        }
    }

    /// Takes what was sent.
    pub(crate) fn fill(&mut self, sent: &Sent) {
        for field in &mut self.fields {
            sent.get(&format!("p.{}", field.name)).unwrap_or_default().clone_into(&mut field.value);
        }
        if let Some(json) = sent.get("json") {
            // Browsers send line ends as the network writes them.
            self.json = json.replace("\r\n", "\n");
        }
        self.as_json = self.fields.is_empty() || sent.get("as") == Some("json");
        let word = sent.get("to").unwrap_or("page");
        let word: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = word.into_deserializer();
        self.to = To::deserialize(word).unwrap_or(To::Page);
        sent.get("webhook").unwrap_or_default().trim().clone_into(&mut self.webhook);
        self.inbox = sent.get("inbox").filter(|id| !id.is_empty()).map(str::to_owned);
    }

    /// The input that was written; `None` when something about it is wrong, which stands beside it then.
    pub(crate) fn input(&mut self) -> Option<String> {
        let no_address = self.to == To::Webhook && self.webhook.is_empty();
        self.webhook_trouble = no_address.then_some("Write the address that the result is to be sent to.");
        let input = if self.as_json { Some(self.json.clone()) } else { self.composed() };
        input.filter(|_| !no_address)
    }

    fn composed(&mut self) -> Option<String> {
        for field in &mut self.fields {
            let value = json::value(&field.value);
            field.trouble = value.err().map(|why| format!("This begins like JSON and is none: {why}."));
        }
        let values = self
            .fields
            .iter()
            .filter_map(|field| Some((field.name.as_str(), json::value(&field.value).ok()??)));
        let values: Vec<_> = values.collect();
        let body = json::object(values.iter().map(|(name, value)| (*name, &**value)));
        let good = self.fields.iter().all(|field| field.trouble.is_none());
        good.then_some(body)
    }

    /// An input to show code with: what is written, and `null` for what still has to be.
    pub(crate) fn example(&self) -> Option<String> {
        if self.as_json {
            return Some(self.json.clone());
        }
        let values = self.fields.iter().map(|field| Some((field.name.as_str(), field.example()?)));
        let values: Vec<_> = values.collect::<Option<_>>()?;
        Some(json::object(values.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)))))
    }

    /// The inbox that the result goes to.
    pub(crate) fn made(&mut self, inbox: &Inbox, page: String) {
        self.inbox = Some(inbox.id.to_string());
        self.inbox_page = Some(page);
    }

    /// Query and body of the request. `inbox` is the address of the inbox made for it.
    pub(crate) fn request(&self, function: &Function, input: &str, inbox: Option<&str>) -> (String, String) {
        let addresses: Vec<&str> = match self.to {
            To::Page => return (String::new(), input.to_owned()),
            To::Run => return ("async=true".to_owned(), input.to_owned()),
            To::Inbox => inbox.into_iter().collect(),
            To::Webhook => self.webhook.split_whitespace().collect(),
        };
        let is_own_key = function.parameters.iter().any(|parameter| parameter.name == WEBHOOK_ENDPOINT);
        if let Some(entries) = queue::json::entries(input).filter(|_| !is_own_key) {
            let wanted = match addresses.as_slice() {
                [one] => json::text(one),
                several => serde_json::Value::from(several).to_string(),
            };
            let kept = entries.iter().filter(|(key, _)| key != WEBHOOK_ENDPOINT);
            let kept = kept.map(|(key, value)| (key.as_str(), value.get()));
            return (String::new(), json::object(kept.chain([(WEBHOOK_ENDPOINT, wanted.as_str())])));
        }
        let mut query = url::form_urlencoded::Serializer::new(String::from("async=true"));
        for address in addresses {
            query.append_pair("webhookEndpoint", address);
        }
        (query.finish(), input.to_owned())
    }

    /// The form as it was for a call with this input, whose result went to these addresses.
    pub(crate) fn again(&mut self, input: &str, addresses: &[EndpointUrl]) {
        let mut input = code::plain(input);
        self.as_json = true;
        if let Some(entries) = queue::json::entries(&input) {
            let is_own_key = self.fields.iter().any(|field| field.name == WEBHOOK_ENDPOINT);
            let kept = entries.iter().filter(|(key, _)| key != WEBHOOK_ENDPOINT || is_own_key);
            let kept: Vec<_> = kept.map(|(key, value)| (key.as_str(), value.get())).collect();
            let is_field = |key: &str| self.fields.iter().any(|field| field.name == key);
            self.as_json = self.fields.is_empty() || !kept.iter().all(|(key, _)| is_field(key));
            for field in &mut self.fields {
                let value = kept.iter().find(|(key, _)| *key == field.name);
                field.value = value.map_or_else(String::new, |(_, value)| (*value).to_owned());
            }
            input = json::object(kept);
        }
        self.json = pages::pretty(&input, usize::MAX).unwrap_or(input);
        self.to = if addresses.is_empty() { To::Run } else { To::Webhook };
        self.webhook = addresses.iter().map(EndpointUrl::as_str).collect::<Vec<_>>().join(" ");
    }
}

#[cfg(test)]
mod tests {
    use queue::app::Parameter;

    use super::*;

    fn function(contract: Contract) -> Function {
        let parameter = |name: &str, required| Parameter { name: name.into(), required };
        Function {
            name: "predict".into(),
            contract,
            parameters: vec![parameter("prompt", true), parameter("steps", false)],
            takes_any: false,
            streams: false,
        }
    }

    fn filled(function: &Function, sent: &[(&str, &str)]) -> TryForm {
        let mut form = TryForm::of(&"p-11111111-demo".parse().unwrap(), function);
        form.fill(&Sent::from(sent));
        form
    }

    #[test]
    fn a_field_per_parameter_becomes_a_body_of_json() {
        let function = function(Contract::Keywords);
        let mut form =
            filled(&function, &[("as", "fields"), ("p.prompt", "a \"red\" fox"), ("p.steps", "1.10")]);
        assert_eq!(form.input().unwrap(), r#"{"prompt":"a \"red\" fox","steps":1.10}"#);
        assert_eq!(filled(&function, &[("p.prompt", " ")]).input().unwrap(), "{}");
        let mut broken = filled(&function, &[("p.prompt", "[1, 2")]);
        assert!(broken.input().is_none());
        let html = broken.render().unwrap();
        assert!(
            html.contains("This begins like JSON and is none") && html.contains("aria-invalid"),
            "{html}"
        );
        let as_json =
            filled(&function, &[("as", "json"), ("p.steps", "1"), ("json", "{\"a\":\r\n1}")]).input();
        assert_eq!(as_json.unwrap(), "{\"a\":\n1}");
    }

    #[test]
    fn a_function_whose_parameters_are_no_keys_is_asked_in_json() {
        for contract in [Contract::Item, Contract::Model] {
            let html = filled(&function(contract), &[]).render().unwrap();
            assert!(!html.contains("name=\"p.") && html.contains("name=\"json\""), "{html}");
        }
        let html = filled(&function(Contract::Keywords), &[]).render().unwrap();
        assert!(html.contains("name=\"p.prompt\"") && html.matches(">required<").count() == 1, "{html}");
    }

    #[test]
    fn the_webhook_goes_into_the_body_unless_the_body_is_not_the_place_for_it() {
        let plain = function(Contract::Keywords);
        let webhook = |function: &Function, input| {
            let sent = [("to", "webhook"), ("webhook", "https://a.example/?x=1")];
            filled(function, &sent).request(function, input, None)
        };
        assert_eq!(
            webhook(&plain, r#"{"prompt":1.10,"webhook_endpoint":"https://old.example"}"#),
            (String::new(), r#"{"prompt":1.10,"webhook_endpoint":"https://a.example/?x=1"}"#.into())
        );
        let query = "async=true&webhookEndpoint=https%3A%2F%2Fa.example%2F%3Fx%3D1";
        assert_eq!(webhook(&plain, "[1]"), (query.into(), "[1]".into()));
        let mut own = plain.clone();
        own.parameters.push(Parameter { name: WEBHOOK_ENDPOINT.into(), required: false });
        assert_eq!(webhook(&own, "{}"), (query.into(), "{}".into()));

        let to = |to, inbox| filled(&plain, &[("to", to)]).request(&plain, "{}", inbox);
        assert_eq!(to("page", None), (String::new(), "{}".into()));
        assert_eq!(to("run", None), ("async=true".into(), "{}".into()));
        let inbox = "http://127.0.0.1:4100/inbox/1";
        assert_eq!(
            to("inbox", Some(inbox)),
            (String::new(), format!("{{\"webhook_endpoint\":\"{inbox}\"}}"))
        );
        let mut nowhere = filled(&plain, &[("to", "webhook"), ("webhook", " ")]);
        assert!(nowhere.input().is_none() && nowhere.render().unwrap().contains("Write the address"));
    }

    #[test]
    fn a_call_is_made_again_with_what_it_was_made_with() {
        let function = function(Contract::Keywords);
        let again = |input, addresses: &[&str]| {
            let mut form = filled(&function, &[]);
            let addresses: Vec<_> = addresses.iter().map(|url| EndpointUrl::checked(url)).collect();
            form.again(input, &addresses);
            form
        };
        let hook = "https://a.example/hook";
        let input = r#"{"webhook_endpoint":"https://a.example/hook","prompt":1.10}"#;
        let mut form = again(input, &[hook]);
        assert!(!form.as_json && form.to == To::Webhook, "{form:?}");
        let body = form.input().unwrap();
        assert_eq!(
            form.request(&function, &body, None),
            (String::new(), r#"{"prompt":1.10,"webhook_endpoint":"https://a.example/hook"}"#.into())
        );
        // What has no field is written as JSON, and nothing in it acts on the page.
        let mut form = again("{\"other\":\"\u{202e}\"}", &[]);
        assert!(form.as_json && form.to == To::Run, "{form:?}");
        assert_eq!(form.input().unwrap(), "{\n  \"other\": \"\\u202e\"\n}");
        let two = again("{}", &[hook, "https://b.example/"]);
        assert_eq!(
            two.request(&function, "{}", None).1,
            r#"{"webhook_endpoint":["https://a.example/hook","https://b.example/"]}"#
        );
    }

    #[test]
    fn what_was_written_stands_in_the_form_as_text() {
        let hostile = "</textarea><script>alert(1)</script>";
        let sent = [
            ("p.prompt", hostile),
            ("json", hostile),
            ("webhook", "\"><script>alert(1)</script>"),
            ("inbox", hostile),
        ];
        let html = filled(&function(Contract::Keywords), &sent).render().unwrap();
        assert!(!html.contains("<script") && html.matches("&#60;script&#62;").count() == 4, "{html}");
    }
}
