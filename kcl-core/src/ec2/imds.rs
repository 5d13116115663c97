use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::{MetadataError, MetadataErrorKind};
use super::instance::Instance;
use super::transport::{Http, MetadataAnswer, MetadataRequest, MetadataTransport, TransportError};
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind};
use crate::retry::Backoff;

/// Where the service is for who uses IPv4.
const IPV4_ENDPOINT: &str = "http://169.254.169.254";
/// The same for IPv6.
const IPV6_ENDPOINT: &str = "http://[fd00:ec2::254]";
const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// How long a token lives, by default and at most: six hours.
const MAX_TTL: Duration = Duration::from_secs(21_600);
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the instance's identity is asked for before it is given up, and the pauses between.
const IDENTITY_ATTEMPTS: u32 = 4;
const RETRY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A client of the instance metadata service, version 2 (IMDSv2).
///
/// It fetches a session token with `PUT`, sends it with each `GET`, and replaces it when four fifths of its life are
/// over or the service refuses it with `401`. Version 1, without tokens, is not spoken. Clones share the token.
/// The protocol is that of the EC2 user guide, "Use the Instance Metadata Service to access instance metadata".
#[derive(Clone, Debug)]
pub struct Imds {
    endpoint: String,
    transport: Option<Arc<dyn MetadataTransport>>,
    call_timeout: Duration,
    token_ttl: Duration,
    token: Arc<Mutex<Option<Token>>>,
    entropy: Entropy,
}

#[derive(Clone, Debug)]
struct Token {
    text: Arc<str>,
    renew_at: Instant,
}

impl Imds {
    /// A client of the service at `http://169.254.169.254`.
    ///
    /// # Errors
    /// None of this endpoint; as [`at`](Self::at).
    pub fn new() -> Result<Self, Error> {
        Self::at(IPV4_ENDPOINT)
    }

    /// A client of the service at another endpoint: `http://HOST` or `http://HOST:PORT`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], if it is no such URL.
    pub fn at(endpoint: impl Into<String>) -> Result<Self, Error> {
        let endpoint = endpoint.into();
        // Half, so that who does not connect is told from who does not answer.
        let transport = Http::new(&endpoint, CALL_TIMEOUT / 2)?;
        Ok(Self::over(endpoint, Some(Arc::new(transport))))
    }

    /// A client whose requests are carried by `transport`, for tests.
    #[must_use]
    pub fn with_transport(transport: impl MetadataTransport) -> Self {
        Self::over("the given transport".to_owned(), Some(Arc::new(transport)))
    }

    /// A client as the variables of the AWS SDKs say:
    ///
    /// | variable | value | default |
    /// |---|---|---|
    /// | `AWS_EC2_METADATA_DISABLED` | `true`: nothing is ever asked; `false` | `false` |
    /// | `AWS_EC2_METADATA_SERVICE_ENDPOINT` | a URL | by the mode |
    /// | `AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE` | `IPv4` or `IPv6`: `http://169.254.169.254` or `http://[fd00:ec2::254]` | `IPv4` |
    ///
    /// # Errors
    /// [`ErrorKind::Config`], if one of them has a value that is none of these.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
        const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
        let value = |name| variable(name).filter(|value| !value.trim().is_empty());
        let refuse = |name: &str, value: &str, expected: &str| {
            Error::new(ErrorKind::Config, format!("{name} is {value:?}; {expected} is expected"))
        };
        if let Some(disabled) = value(DISABLED) {
            match disabled.trim().to_ascii_lowercase().as_str() {
                "true" => return Ok(Self::over(DISABLED.to_owned(), None)),
                "false" => {}
                _ => return Err(refuse(DISABLED, &disabled, "true or false")),
            }
        }
        if let Some(endpoint) = value(ENDPOINT) {
            return Self::at(endpoint.trim()).map_err(|error| error.within(&format!("{ENDPOINT}: ")));
        }
        match value(MODE) {
            None => Self::new(),
            Some(mode) if mode.trim().eq_ignore_ascii_case("ipv4") => Self::new(),
            Some(mode) if mode.trim().eq_ignore_ascii_case("ipv6") => Self::at(IPV6_ENDPOINT),
            Some(mode) => Err(refuse(MODE, &mode, "IPv4 or IPv6")),
        }
    }

    fn over(endpoint: String, transport: Option<Arc<dyn MetadataTransport>>) -> Self {
        Self {
            endpoint,
            transport,
            call_timeout: CALL_TIMEOUT,
            token_ttl: MAX_TTL,
            token: Arc::default(),
            entropy: Entropy::default(),
        }
    }

    /// How long one request may take until its answer is there. Default 1 s. A connection must stand within 500 ms.
    #[must_use]
    pub const fn call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = limit;
        self
    }

    /// How long a token is to live, in whole seconds: 1 s to 6 h, the default; what is outside is moved to the nearer
    /// end.
    #[must_use]
    pub fn token_ttl(mut self, ttl: Duration) -> Self {
        self.token_ttl = ttl.clamp(Duration::from_secs(1), MAX_TTL);
        self
    }

    /// The source of randomness of retries. Default: seeded by the operating system.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// Id and region of this instance. Trouble that may pass is tried four times, within about six seconds.
    ///
    /// # Errors
    /// Off EC2, or if the service does not say.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request under way.
    pub async fn instance(&self) -> Result<Instance, MetadataError> {
        let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX, self.entropy.clone());
        loop {
            match self.identity().await {
                Err(error)
                    if matches!(error.kind(), MetadataErrorKind::Slow | MetadataErrorKind::Failing)
                        && backoff.attempts() + 1 < IDENTITY_ATTEMPTS =>
                {
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn identity(&self) -> Result<Instance, MetadataError> {
        let id = self.required("instance-id").await?;
        let region = self.required("placement/region").await?;
        Instance::new(&id, &region).map_err(|problem| self.odd(&problem))
    }

    async fn required(&self, path: &str) -> Result<String, MetadataError> {
        self.get(path).await?.ok_or_else(|| self.odd(&format!("it has no {path}")))
    }

    /// The value at a path below `/latest/meta-data/`; none if there is none right now.
    ///
    /// # Errors
    /// If the service is not there or does not answer as it should.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request under way.
    pub async fn get(&self, path: &str) -> Result<Option<String>, MetadataError> {
        let path = format!("/latest/meta-data/{path}");
        let token = self.token().await?;
        let mut answer = self.value(&path, &token).await?;
        if answer.status == 401 {
            // The token expired early, or the service began anew.
            self.forget(&token);
            let token = self.token().await?;
            answer = self.value(&path, &token).await?;
        }
        match answer.status {
            200 => match std::str::from_utf8(&answer.body) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(_) => Err(self.odd(&format!("the answer to GET {path} is not text"))),
            },
            404 => Ok(None),
            status => Err(self.refusal("GET", &path, status)),
        }
    }

    async fn value(&self, path: &str, token: &str) -> Result<MetadataAnswer, MetadataError> {
        let header = (TOKEN_HEADER, token.to_owned());
        self.call(MetadataRequest { method: "GET", path: path.to_owned(), header }).await
    }

    async fn token(&self) -> Result<Arc<str>, MetadataError> {
        if let Some(token) = self.held().as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(Arc::clone(&token.text));
        }
        let asked_at = Instant::now();
        let header = (TTL_HEADER, self.token_ttl.as_secs().to_string());
        let path = TOKEN_PATH.to_owned();
        let answer = self.call(MetadataRequest { method: "PUT", path, header }).await?;
        if answer.status != 200 {
            return Err(self.refusal("PUT", TOKEN_PATH, answer.status));
        }
        let text: Arc<str> = std::str::from_utf8(&answer.body)
            .ok()
            .map(str::trim)
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| self.odd(&format!("the answer to PUT {TOKEN_PATH} is not a token")))?
            .into();
        let renew_at = asked_at + self.token_ttl * 4 / 5;
        *self.held() = Some(Token { text: Arc::clone(&text), renew_at });
        Ok(text)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops a token, unless another has taken its place.
    fn forget(&self, token: &str) {
        let mut held = self.held();
        if held.as_ref().is_some_and(|held| &*held.text == token) {
            *held = None;
        }
    }

    async fn call(&self, request: MetadataRequest) -> Result<MetadataAnswer, MetadataError> {
        let endpoint = &self.endpoint;
        let Some(transport) = &self.transport else {
            let message = format!("instance metadata is switched off by {endpoint}; unset it on EC2");
            return Err(MetadataError::new(MetadataErrorKind::Disabled, message));
        };
        let (method, path) = (request.method, request.path.clone());
        let (kind, problem) = match timeout(self.call_timeout, transport.call(request)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error @ TransportError::NoConnection(_))) => {
                let message = format!(
                    "no instance metadata service at {endpoint} ({error}): this is not an EC2 instance, or its way to \
                     the service is blocked"
                );
                return Err(MetadataError::new(MetadataErrorKind::Absent, message));
            }
            Ok(Err(error)) => (MetadataErrorKind::Failing, error.to_string()),
            Err(_) => {
                let hint = if method == "PUT" {
                    "; in a container, set the hop limit of the instance's metadata options to 2"
                } else {
                    ""
                };
                (MetadataErrorKind::Slow, format!("no answer within {:?}{hint}", self.call_timeout))
            }
        };
        Err(MetadataError::new(kind, format!("instance metadata at {endpoint}: {method} {path}: {problem}")))
    }

    fn refusal(&self, method: &str, path: &str, status: u16) -> MetadataError {
        let (kind, remedy) = match status {
            403 => (
                MetadataErrorKind::Refused,
                "; the service is switched off for this instance: set HttpEndpoint to enabled in its metadata options",
            ),
            401 => (MetadataErrorKind::Refused, " with a fresh token; is there a proxy on the way?"),
            429 | 500..=599 => (MetadataErrorKind::Failing, ""),
            _ => (MetadataErrorKind::Odd, "; version 2 of the service is expected"),
        };
        let message =
            format!("instance metadata at {}: {method} {path} answered {status}{remedy}", self.endpoint);
        MetadataError::new(kind, message)
    }

    /// An answer that makes no sense.
    pub(super) fn odd(&self, problem: &str) -> MetadataError {
        let message =
            format!("instance metadata at {}: {problem}; is there a proxy on the way?", self.endpoint);
        MetadataError::new(MetadataErrorKind::Odd, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Imds, Error> {
        let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
        Imds::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[tokio::test]
    async fn the_variables_of_the_sdks_say_where_the_service_is() {
        const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
        const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
        for (variables, endpoint) in [
            (&[][..], IPV4_ENDPOINT),
            (&[(MODE, "IPv6")], IPV6_ENDPOINT),
            (&[(MODE, "ipv4"), (DISABLED, "false")], IPV4_ENDPOINT),
            (&[(MODE, "IPv6"), (ENDPOINT, "http://127.0.0.1:99")], "http://127.0.0.1:99"),
            (&[(ENDPOINT, " ")], IPV4_ENDPOINT),
        ] {
            assert_eq!(from(variables).unwrap().endpoint, endpoint, "{variables:?}");
        }
        for wrong in [(ENDPOINT, "nowhere"), (MODE, "5"), (DISABLED, "yes")] {
            let error = from(&[wrong]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(wrong.0) && error.to_string().contains("expected"), "{error}");
        }
        let disabled = from(&[(DISABLED, "True"), (ENDPOINT, "http://127.0.0.1:99")]).unwrap();
        assert_eq!(disabled.get("instance-id").await.unwrap_err().kind(), MetadataErrorKind::Disabled);
    }
}
