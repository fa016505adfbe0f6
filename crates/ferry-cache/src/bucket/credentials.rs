//! Keys to sign requests to a bucket with, from wherever they come.
//!
//! Those of Amazon's token service and of its virtual machines `object_store` gets by itself; hosts
//! of containers with all their kinds of tokens, and commands that print keys, are asked here. Keys
//! that hold for some time only are asked for again before that is over.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ferry_store::http::{
    ContainerToken, Exchange, HeaderMap, HttpClient, Method, S3Credentials, Secret, Uri,
};
use ferry_store::message::{beginning, harmless};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Config, AwsCredential};
use object_store::{CredentialProvider, HeaderValue};
use serde::Deserialize;

/// No answer with keys is longer, in bytes.
const MAX_ANSWER: u64 = 64 << 10;
/// So long before keys cease to hold they are asked for again.
const MARGIN: Duration = Duration::from_secs(300);
/// The hosts, besides this machine itself, that may be asked without TLS: those of ECS and EKS.
const CONTAINER_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// Why there are no keys. No secret is in it.
#[derive(Debug, Clone)]
pub(super) struct NoCredentials {
    pub(super) reason: String,
    /// What the server answered, if that was it.
    pub(super) status: Option<u16>,
}

impl NoCredentials {
    fn new(reason: impl fmt::Display) -> Self {
        Self { reason: harmless(&reason.to_string()), status: None }
    }
}

impl fmt::Display for NoCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for NoCredentials {}

/// Says who asks. `near` reaches the host of a container.
pub(super) fn with_credentials(
    builder: AmazonS3Builder,
    credentials: &S3Credentials,
    near: &HttpClient,
) -> Result<AmazonS3Builder, String> {
    let ask = |source| Arc::new(Asked { source, near: near.clone(), held: Mutex::default() });
    Ok(match credentials {
        S3Credentials::Keys { access_key_id, secret_access_key, session_token } => {
            let builder =
                builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key);
            match session_token {
                Some(token) => builder.with_token(token),
                None => builder,
            }
        }
        S3Credentials::WebIdentity { token_file, role, session_name } => {
            let builder = builder
                .with_config(Config::WebIdentityTokenFile, token_file.to_string_lossy())
                .with_config(Config::RoleArn, role);
            match session_name {
                Some(name) => builder.with_config(Config::RoleSessionName, name),
                None => builder,
            }
        }
        S3Credentials::Instance { endpoint } => builder.with_metadata_endpoint(endpoint),
        S3Credentials::Container { uri, token } => {
            let uri = container_uri(uri)?;
            builder.with_credentials(ask(Source::Container { uri, token: token.clone() }))
        }
        S3Credentials::Process { command } => {
            builder.with_credentials(ask(Source::Process(command.clone())))
        }
        _ => builder.with_skip_signature(true),
    })
}

/// Keys are asked for over TLS, or on a way that nobody else is on.
fn container_uri(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| format!("`{}` is no URL", harmless(text)))?;
    let host = uri.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse();
    let is_here = address.is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    let is_near = is_here || host == "localhost" || CONTAINER_HOSTS.contains(&host);
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_near => Ok(uri),
        _ => Err(format!(
            "`{}`: keys are asked for by https, or by http of this machine or the host of its \
             container",
            harmless(text)
        )),
    }
}

/// Somebody who is asked for keys.
struct Asked {
    source: Source,
    near: HttpClient,
    held: Mutex<Option<Held>>,
}

enum Source {
    Container { uri: Uri, token: ContainerToken },
    Process(String),
}

/// Keys, and until when they hold.
struct Held {
    keys: Arc<AwsCredential>,
    until: Option<SystemTime>,
}

impl Held {
    fn is_good(&self) -> bool {
        self.until.is_none_or(|until| {
            until.duration_since(SystemTime::now()).is_ok_and(|left| left > MARGIN)
        })
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Asked")
    }
}

#[async_trait]
impl CredentialProvider for Asked {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_ref().filter(|held| held.is_good()) {
            return Ok(Arc::clone(&held.keys));
        }
        let new = self.source.ask(&self.near).map_err(|source| object_store::Error::Generic {
            store: "S3",
            source: Box::new(source),
        })?;
        let keys = Arc::clone(&new.keys);
        *held = Some(new);
        Ok(keys)
    }
}

impl Source {
    fn ask(&self, near: &HttpClient) -> Result<Held, NoCredentials> {
        match self {
            Self::Container { uri, token } => {
                let answer = get(near, uri, token)?;
                understand(&answer).map_err(|reason| {
                    NoCredentials::new(format_args!("{uri} answers with no keys: {reason}"))
                })
            }
            Self::Process(command) => run(command),
        }
    }
}

/// What the host of a container answers.
fn get(near: &HttpClient, uri: &Uri, token: &ContainerToken) -> Result<Vec<u8>, NoCredentials> {
    let token = match token {
        ContainerToken::None => None,
        ContainerToken::Given(Secret(token)) => Some(token.clone()),
        ContainerToken::InFile(file) => Some(fs::read_to_string(file).map_err(|error| {
            NoCredentials::new(format_args!("cannot read {}: {error}", file.display()))
        })?),
    };
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let value = HeaderValue::from_str(token.trim_end())
            .map_err(|_| NoCredentials::new("the token for the host of the container is none"))?;
        headers.insert("authorization", value);
    }
    let exchange = Exchange {
        method: &Method::GET,
        uri,
        headers: &headers,
        body: &[],
        is_short: true,
        explain: beginning,
    };
    let response = near
        .exchange(exchange)
        .map_err(|error| NoCredentials { status: error.status(), ..NoCredentials::new(error) })?;
    let mut answer = Vec::new();
    let read = response.into_body().take(MAX_ANSWER).read_to_end(&mut answer);
    read.map_err(|error| NoCredentials::new(format_args!("{uri}: {error}")))?;
    Ok(answer)
}

/// What a command prints.
fn run(command: &str) -> Result<Held, NoCredentials> {
    let failed = |reason: &dyn fmt::Display| {
        let name = command.split_whitespace().next().unwrap_or_default();
        NoCredentials::new(format_args!("the `credential_process` `{name} …`: {reason}"))
    };
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut answer = Vec::new();
    let read = child.stdout.take().map(|out| out.take(MAX_ANSWER).read_to_end(&mut answer));
    let status = child.wait().map_err(|error| failed(&error))?;
    read.transpose().map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(failed(&status));
    }
    understand(&answer).map_err(|reason| failed(&format_args!("it prints no keys: {reason}")))
}

/// Keys as hosts of containers answer, and as commands print.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    expiration: Option<String>,
}

fn understand(answer: &[u8]) -> Result<Held, String> {
    // What serde says of a value of the wrong type shows the value.
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| format!("line {}, column {}", error.line(), error.column()))?;
    let until = answer.expiration.filter(|text| !text.is_empty());
    let until = until.map(|text| {
        let parsed = chrono::DateTime::parse_from_rfc3339(&text);
        parsed.map(SystemTime::from).map_err(|_| format!("`{}` is no time", harmless(&text)))
    });
    Ok(Held {
        keys: Arc::new(AwsCredential {
            key_id: answer.access_key_id,
            secret_key: answer.secret_access_key,
            token: answer.token.filter(|token| !token.is_empty()),
        }),
        until: until.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_understood_in_both_forms_and_nothing_of_what_is_none_is_shown() {
        let held = understand(
            br#"{"AccessKeyId":"A","SecretAccessKey":"s","Token":"t","Expiration":"2011-10-05T14:48:00Z"}"#,
        );
        let held = held.unwrap();
        assert_eq!((held.keys.key_id.as_str(), held.keys.token.as_deref()), ("A", Some("t")));
        assert!(!held.is_good());
        let printed =
            br#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s","SessionToken":"t"}"#;
        let held = understand(printed).unwrap();
        assert!(held.is_good() && held.keys.token.as_deref() == Some("t"));
        let error = understand(br#"{"AccessKeyId":"A","SecretAccessKey":["hush"]}"#).err().unwrap();
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn keys_are_not_asked_for_where_others_listen() {
        for good in [
            "http://127.0.0.1:81/x",
            "http://localhost/x",
            "http://[::1]:80/x",
            "http://169.254.170.2/v2/x",
            "http://[fd00:ec2::23]/x",
            "https://example.org/x",
        ] {
            assert!(container_uri(good).is_ok(), "{good}");
        }
        for bad in ["http://example.org/x", "http://169.254.169.254/", "ftp://localhost/x", "x y"] {
            assert!(container_uri(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_that_fails_is_named_without_its_arguments() {
        let error = run("false hush").err().unwrap().to_string();
        assert!(error.contains("`false …`") && !error.contains("hush"), "{error}");
        let held = run(r#"echo '{"AccessKeyId":"A","SecretAccessKey":"s"}'"#).unwrap();
        assert_eq!(held.keys.secret_key, "s");
    }
}
