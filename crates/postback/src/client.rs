//! The client half of the control plane: what the commands ask a server.

use std::time::Duration;

use anyhow::Context as _;
use queue::app::AppConfig;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::print::WithHint;
use crate::profile::{Profile, check_url};

mod again;

pub(crate) use again::Again;

/// A request may take this long; long-polls and uploads bring their own limit.
const LIMIT: Duration = Duration::from_secs(30);
const UPLOAD_LIMIT: Duration = Duration::from_secs(30 * 60);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A connection to one server, for one project.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    api_key: String,
    project: String,
}

/// What a server said instead of yes.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ServerSaid {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    message: String,
}

impl ServerSaid {
    /// Whether asking again would bring the same answer.
    pub(crate) fn is_final(&self) -> bool {
        self.status.is_client_error() && self.status != StatusCode::TOO_MANY_REQUESTS
    }
}

impl Client {
    /// Connects; asks the server for the key's project when the profile names none.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses the key.
    pub(crate) async fn connect(profile: Profile) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .user_agent(concat!("postback/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("failed to set up the HTTP client")?;
        let Profile { url, api_key, project } = profile;
        check_url(&url)?;
        let mut client = Self { http, url, api_key, project: String::new() };
        client.project = match project {
            Some(project) => project,
            None => {
                let projects = client.ask(Method::GET, "/v2/projects").json().await?;
                projects[0]["id"].as_str().context("the server named no project for this key")?.to_owned()
            }
        };
        Ok(client)
    }

    /// The project that the key opens.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// The server's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The id of the project's app of that name; an app id stays as it is.
    pub(crate) fn app_id(&self, app: &str) -> String {
        if app.starts_with(&format!("{}-", self.project)) {
            app.to_owned()
        } else {
            format!("{}-{app}", self.project)
        }
    }

    /// A request to `path`, which begins with `/`.
    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask<'_> {
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.api_key))
            .timeout(LIMIT);
        Ask { request, url: &self.url }
    }

    /// A request to `/v2/projects/{project}/{path}`.
    pub(crate) fn control(&self, method: Method, path: &str) -> Ask<'_> {
        self.ask(method, &format!("/v2/projects/{}/{path}", self.project))
    }

    /// Registers a build of the app `name`; the answer has `buildId`, `uploadUrl`, `internalEndpoint`.
    ///
    /// # Errors
    /// When the server refuses the configuration.
    pub(crate) async fn create_build(&self, name: &str, config: &AppConfig) -> anyhow::Result<Value> {
        self.control(Method::POST, "apps").body(&create_app_body(name, config)?).json().await
    }

    /// Uploads a build's archive; `progress` hears of each part.
    ///
    /// # Errors
    /// When the server refuses it or the connection breaks.
    pub(crate) async fn upload(
        &self,
        upload_url: &str,
        archive: std::fs::File,
        size: u64,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> anyhow::Result<()> {
        use futures_util::StreamExt as _;
        let parts =
            tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(archive), 256 << 10);
        let parts = parts.inspect(move |part| {
            if let Ok(part) = part {
                progress(part.len() as u64);
            }
        });
        // The address is the server's own; behind a proxy it may differ from the one we talk to.
        let request = self
            .http
            .put(upload_url)
            .header("content-type", "application/zip")
            .header("content-length", size)
            .timeout(UPLOAD_LIMIT)
            .body(reqwest::Body::wrap_stream(parts));
        Ask { request, url: &self.url }.json().await.map(drop)
    }
}

/// The control plane's create-app request. Its keys differ from [`AppConfig`]'s where Cerebrium's
/// clients made them.
fn create_app_body(name: &str, config: &AppConfig) -> anyhow::Result<Value> {
    let mut body = serde_json::to_value(config)?;
    let fields = body.as_object_mut().context("a configuration is an object")?;
    for (ours, theirs) in [
        ("minReplicas", "minReplicaCount"),
        ("maxReplicas", "maxReplicaCount"),
        ("cooldownSeconds", "cooldownPeriodSeconds"),
        ("startLimitSeconds", "deploymentInitializationTimeout"),
    ] {
        if let Some(value) = fields.remove(ours) {
            fields.insert(theirs.to_owned(), value);
        }
    }
    // The dependencies travel as files in the archive, generated there like Cerebrium's clients do.
    for dependencies in ["pip", "apt", "conda"] {
        fields.remove(dependencies);
    }
    fields.retain(|_, value| !value.is_null());
    fields.insert("name".into(), json!(name));
    fields.insert("runtime".into(), json!("cortex"));
    fields.insert("cliVersion".into(), json!(env!("CARGO_PKG_VERSION")));
    Ok(body)
}

/// A request on its way.
pub(crate) struct Ask<'a> {
    request: RequestBuilder,
    url: &'a str,
}

impl Ask<'_> {
    /// With a query parameter.
    pub(crate) fn query(mut self, name: &str, value: impl serde::Serialize) -> Self {
        self.request = self.request.query(&[(name, value)]);
        self
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &str, value: String) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// With a JSON body.
    pub(crate) fn body(mut self, body: &Value) -> Self {
        self.request = self.request.json(body);
        self
    }

    /// With a raw JSON body.
    pub(crate) fn raw_body(mut self, body: String) -> Self {
        self.request = self.request.header("content-type", "application/json").body(body);
        self
    }

    /// With a limit of its own, such as a long-poll's.
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.request = self.request.timeout(limit);
        self
    }

    /// The answer, whatever its status, as status and text.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(crate) async fn any(self) -> anyhow::Result<(StatusCode, String)> {
        self.once().await.map_err(|lost| lost.why)
    }

    /// The same, for whoever may ask again.
    async fn once(self) -> Result<(StatusCode, String), Lost> {
        let lost = |error: reqwest::Error| Lost {
            why: unreachable(self.url, &error),
            nobody_listens: error.is_connect(),
        };
        let answer = self.request.send().await.map_err(lost)?;
        let status = answer.status();
        Ok((status, answer.text().await.map_err(lost)?))
    }

    /// The same, but for a stream of events, whose pieces are told as they come; its text is then empty.
    ///
    /// # Errors
    /// When the server cannot be reached, or the stream breaks off.
    pub(crate) async fn any_or_events(
        self,
        mut on_piece: impl FnMut(&[u8]),
    ) -> anyhow::Result<(StatusCode, String)> {
        let unreachable = |error: reqwest::Error| unreachable(self.url, &error);
        let mut answer = self.request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let kind = answer.headers().get(reqwest::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Ok((status, answer.text().await.map_err(unreachable)?));
        }
        while let Some(piece) = answer.chunk().await.map_err(unreachable)? {
            on_piece(&piece);
        }
        Ok((status, String::new()))
    }

    /// The answer's JSON.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses.
    pub(crate) async fn json(self) -> anyhow::Result<Value> {
        let url = self.url.to_owned();
        serde_json::from_str(&self.text().await?)
            .with_context(|| format!("`{url}` answered something else than JSON; is it a postback server?"))
    }

    /// The answer's JSON as it came: parsed, the numbers of a model's result could lose digits.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses.
    pub(crate) async fn text(self) -> anyhow::Result<String> {
        let (status, text) = self.any().await?;
        good(status, text)
    }
}

/// The text of an answer that says yes.
///
/// # Errors
/// When it says no.
pub(crate) fn good(status: StatusCode, text: String) -> anyhow::Result<String> {
    if status.is_success() {
        return Ok(text);
    }
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|value| value["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("the server answered {status}"));
    Err(refused(status, message))
}

/// A request without an answer. What it asked for may have been done.
struct Lost {
    why: anyhow::Error,
    /// It was not done: no connection was made.
    nobody_listens: bool,
}

fn refused(status: StatusCode, message: String) -> anyhow::Error {
    let said = anyhow::Error::new(ServerSaid { status, message });
    match status {
        StatusCode::UNAUTHORIZED => said.context(WithHint::new(
            "the server refused the key",
            "`postback keys show` prints the keys of a server on this machine; `postback login` saves one",
        )),
        StatusCode::FORBIDDEN => said.context(WithHint::new(
            "the key may not do this",
            "use the private key (`private-…`): the public one opens inference only",
        )),
        _ => said,
    }
}

fn unreachable(url: &str, error: &reqwest::Error) -> anyhow::Error {
    if error.is_connect() {
        return WithHint::new(
            format!("no server answers at {url}"),
            "start one with `postback serve`, or name another with `--url` or POSTBACK_URL",
        )
        .into();
    }
    if error.is_timeout() {
        return WithHint::new(format!("the server at {url} did not answer in time"), "try again").into();
    }
    anyhow::anyhow!("the connection to {url} broke: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_travels_under_the_names_of_the_control_plane() {
        let config = AppConfig { min_replicas: 1, cooldown_seconds: Some(5), ..AppConfig::default() };
        let body = create_app_body("demo", &config).unwrap();
        assert_eq!(body["name"], "demo");
        assert_eq!((&body["minReplicaCount"], &body["cooldownPeriodSeconds"]), (&json!(1), &json!(5)));
        assert!(body.get("minReplicas").is_none() && body.get("pip").is_none());
    }
}
