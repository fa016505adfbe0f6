//! Who asks, where what is asked is a bucket of S3.

use std::fmt;
use std::path::PathBuf;

/// Who asks a bucket of S3, as far as its address does not say.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// The region of a bucket whose address names none; `us-east-1` where there is none here
    /// either.
    pub region: Option<String>,
    /// Who asks.
    pub credentials: S3Credentials,
}

/// Where the keys come from that requests are signed with.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum S3Credentials {
    /// Nowhere: requests are not signed.
    #[default]
    Anonymous,
    /// They are these.
    Keys {
        /// `AWS_ACCESS_KEY_ID`.
        access_key_id: String,
        /// `AWS_SECRET_ACCESS_KEY`.
        secret_access_key: String,
        /// `AWS_SESSION_TOKEN`, of keys that hold for some time only.
        session_token: Option<String>,
    },
    /// Amazon's token service gives them for a token in a file: roles of service accounts of
    /// Kubernetes, OpenID Connect.
    WebIdentity {
        /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
        token_file: PathBuf,
        /// `AWS_ROLE_ARN`.
        role: String,
        /// `AWS_ROLE_SESSION_NAME`.
        session_name: Option<String>,
    },
    /// The container's host gives them: tasks of ECS, pod identities of EKS.
    Container {
        /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`; of `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, a
        /// URL on the host of ECS.
        uri: String,
        /// What is shown to it.
        token: ContainerToken,
    },
    /// The host of a virtual machine gives them: EC2. Where the machine has no role, requests are
    /// not signed.
    Instance {
        /// `AWS_EC2_METADATA_SERVICE_ENDPOINT`: a URL without a slash at the end.
        endpoint: String,
    },
    /// A command prints them.
    Process {
        /// `credential_process` of a profile, for a shell.
        command: String,
    },
}

/// What is shown to the host of a container, which gives keys for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerToken {
    /// Nothing.
    None,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    Given(Secret),
    /// What is in this file: `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`.
    InFile(PathBuf),
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

// Neither a secret nor a token is ever shown.
impl fmt::Debug for S3Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => formatter.write_str("Anonymous"),
            Self::Keys { access_key_id, .. } => formatter
                .debug_struct("Keys")
                .field("access_key_id", access_key_id)
                .finish_non_exhaustive(),
            Self::WebIdentity { role, .. } => {
                formatter.debug_struct("WebIdentity").field("role", role).finish_non_exhaustive()
            }
            Self::Container { uri, token } => {
                formatter.debug_struct("Container").field("uri", uri).field("token", token).finish()
            }
            Self::Instance { endpoint } => {
                formatter.debug_struct("Instance").field("endpoint", endpoint).finish()
            }
            // It may have a secret among its arguments.
            Self::Process { .. } => formatter.debug_struct("Process").finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let keys = S3Credentials::Keys {
            access_key_id: "AKIA".to_owned(),
            secret_access_key: "hush".to_owned(),
            session_token: Some("hush".to_owned()),
        };
        let shown = format!("{keys:?}");
        assert!(shown.contains("AKIA") && !shown.contains("hush"), "{shown}");
    }
}
