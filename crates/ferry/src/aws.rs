//! Who asks a bucket of S3, as the environment and the files of Amazon's tools say.
//!
//! In the order of Nix and of those tools: the profile in the address, keys in the environment, the
//! profile in the files, a token for Amazon's token service, the host of a container, that of a
//! virtual machine; nobody.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ferry_store::http::{ContainerToken, S3Credentials, S3Options, Secret};
use ini::{Ini, ParseOption, Properties};

use crate::failure::Failure;

/// What a profile may say in place of keys, none of which is understood here.
const OTHER_WAYS: [&str; 4] = ["role_arn", "sso_session", "sso_start_url", "credential_source"];

/// Where a container of ECS asks for keys.
const ECS: &str = "http://169.254.170.2";
/// Where a virtual machine of EC2 does.
const EC2: &str = "http://169.254.169.254";
const EC2_BY_IPV6: &str = "http://[fd00:ec2::254]";
/// Where a machine says who has made it.
const MAKER: &str = "/sys/class/dmi/id/sys_vendor";

/// Where the settings are.
pub(crate) struct Surroundings<'a> {
    /// A variable of the environment.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) home: Option<PathBuf>,
    /// Who has made the machine, as it says itself.
    pub(crate) maker: Option<String>,
}

/// Who has made this machine.
pub(crate) fn maker() -> Option<String> {
    fs::read_to_string(MAKER).ok()
}

impl Surroundings<'_> {
    /// Who asks; `profile` is the one that an address names. Where nobody does although a profile
    /// would have it otherwise, the second part says so.
    pub(crate) fn s3_options(
        &self,
        profile: Option<&str>,
    ) -> Result<(S3Options, Option<String>), Failure> {
        let is_in_address = profile.is_some();
        let profile = profile.map(str::to_owned).or_else(|| self.get("AWS_PROFILE"));
        let files = Files {
            credentials: self.read("AWS_SHARED_CREDENTIALS_FILE", "credentials")?,
            config: self.read("AWS_CONFIG_FILE", "config")?,
        };
        let name = profile.as_deref().unwrap_or("default");
        let found = Profile {
            credentials: files.credentials.as_ref().and_then(|file| section(file, name)),
            config: files.config.as_ref().and_then(|file| match name {
                "default" => section(file, name),
                other => section(file, &format!("profile {other}")),
            }),
        };
        let region = self
            .get("AWS_REGION")
            .or_else(|| self.get("AWS_DEFAULT_REGION"))
            .or_else(|| found.get("region"));
        let in_environment = if is_in_address { None } else { self.keys_in_environment() };
        let credentials = match in_environment {
            Some(keys) => keys,
            None => match found.credentials() {
                Some(credentials) => credentials,
                None if is_in_address => return Err(found.without_keys(name)),
                None => match self.other_ways() {
                    S3Credentials::Anonymous if profile.is_some() => {
                        return Err(found.without_keys(name));
                    }
                    credentials => credentials,
                },
            },
        };
        let is_nobody = matches!(credentials, S3Credentials::Anonymous);
        let passed_over = found.other_way().filter(|_| is_nobody).map(|way| {
            format!(
                "the profile `{name}` has `{way}`, which is not understood here: requests to the \
                 bucket are not signed ({})",
                export(name)
            )
        });
        Ok((S3Options { region, credentials }, passed_over))
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn keys_in_environment(&self) -> Option<S3Credentials> {
        Some(S3Credentials::Keys {
            access_key_id: self.get("AWS_ACCESS_KEY_ID")?,
            secret_access_key: self.get("AWS_SECRET_ACCESS_KEY")?,
            session_token: self.get("AWS_SESSION_TOKEN"),
        })
    }

    fn other_ways(&self) -> S3Credentials {
        let file = |name| self.get(name).map(PathBuf::from);
        let token = (file("AWS_WEB_IDENTITY_TOKEN_FILE"), self.get("AWS_ROLE_ARN"));
        if let (Some(token_file), Some(role)) = token {
            let session_name = self.get("AWS_ROLE_SESSION_NAME");
            return S3Credentials::WebIdentity { token_file, role, session_name };
        }
        let relative = self.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let uri = relative.map(|uri| format!("{ECS}{uri}"));
        if let Some(uri) = uri.or_else(|| self.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            let given = self.get("AWS_CONTAINER_AUTHORIZATION_TOKEN");
            let token = match file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
                Some(file) => ContainerToken::InFile(file),
                None => {
                    given.map_or(ContainerToken::None, |text| ContainerToken::Given(Secret(text)))
                }
            };
            return S3Credentials::Container { uri, token };
        }
        match self.instance() {
            Some(endpoint) => S3Credentials::Instance { endpoint },
            None => S3Credentials::Anonymous,
        }
    }

    /// Where a virtual machine of Amazon's asks for keys. No other machine asks, and waits for
    /// nobody to answer, unless it is told where.
    fn instance(&self) -> Option<String> {
        let is_disabled = self.get("AWS_EC2_METADATA_DISABLED");
        if is_disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let mode = self.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
        let usual = match mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6")) {
            true => EC2_BY_IPV6,
            false => EC2,
        };
        let is_one = self.maker.as_ref().is_some_and(|maker| maker.contains("Amazon EC2"));
        let given = self.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let endpoint = given.or_else(|| is_one.then(|| usual.to_owned()))?;
        Some(endpoint.trim_end_matches('/').to_owned())
    }

    /// Reads one of the two files, if it is there.
    fn read(&self, variable: &str, name: &str) -> Result<Option<Ini>, Failure> {
        let usual = || self.home.as_ref().map(|home| home.join(".aws").join(name));
        match self.get(variable).map(PathBuf::from).or_else(usual) {
            Some(path) => parse(&path),
            None => Ok(None),
        }
    }
}

struct Files {
    credentials: Option<Ini>,
    config: Option<Ini>,
}

/// What the two files say under one name.
struct Profile<'a> {
    credentials: Option<&'a Properties>,
    config: Option<&'a Properties>,
}

impl Profile<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let values = [self.credentials, self.config].into_iter().flatten();
        values
            .filter_map(|section| section.get(name))
            .find(|value| !value.is_empty())
            .map(str::to_owned)
    }

    /// Where its keys come from, if it is one of the ways that are understood.
    fn credentials(&self) -> Option<S3Credentials> {
        let keys = (self.get("aws_access_key_id"), self.get("aws_secret_access_key"));
        if let (Some(access_key_id), Some(secret_access_key)) = keys {
            let session_token = self.get("aws_session_token");
            return Some(S3Credentials::Keys { access_key_id, secret_access_key, session_token });
        }
        let token = (self.get("web_identity_token_file"), self.get("role_arn"));
        if let (Some(token_file), Some(role)) = token {
            return Some(S3Credentials::WebIdentity {
                token_file: PathBuf::from(token_file),
                role,
                session_name: self.get("role_session_name"),
            });
        }
        // A role that another profile takes on is none that a command has.
        match self.other_way() {
            Some(_) => None,
            None => {
                self.get("credential_process").map(|command| S3Credentials::Process { command })
            }
        }
    }

    /// What it has in place of keys that is not understood here.
    fn other_way(&self) -> Option<&'static str> {
        OTHER_WAYS.into_iter().find(|way| self.get(way).is_some())
    }

    fn without_keys(&self, name: &str) -> Failure {
        if self.credentials.is_none() && self.config.is_none() {
            let files = "~/.aws/credentials and ~/.aws/config";
            return Failure::new(format!("there is no profile `{name}` in {files}"))
                .hint("name another one with `profile=…` in the address, or with AWS_PROFILE");
        }
        let reason = match self.other_way() {
            Some(way) => format!("has `{way}`, which is not understood here, and no keys"),
            None => "has no `aws_access_key_id` and `aws_secret_access_key`".to_owned(),
        };
        Failure::new(format!("the profile `{name}` {reason}")).hint(export(name))
    }
}

/// How any profile's keys are had.
fn export(profile: &str) -> String {
    format!(
        "put keys into the environment: eval $(aws configure export-credentials --profile \
         {profile} --format env)"
    )
}

fn section<'a>(file: &'a Ini, name: &str) -> Option<&'a Properties> {
    file.section(Some(name))
}

fn parse(path: &Path) -> Result<Option<Ini>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot read {}: {error}", path.display()))
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let options = ParseOption {
        enabled_quote: false,
        enabled_escape: false,
        // Settings below settings are indented, and none of ours.
        enabled_preserve_key_leading_whitespace: true,
        ..ParseOption::default()
    };
    // The message of the parser shows nothing of the file but where it is wrong.
    Ini::load_from_str_opt(&text, options).map(Some).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "[default]\naws_access_key_id = D\naws_secret_access_key = d/+\\\"=\n\
        \n# more\n[up]\naws_access_key_id=U\naws_secret_access_key=u\naws_session_token=t\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n  region = nested\n[profile up]\n\
        region=eu-north-1\n[profile role]\nrole_arn=arn:x\n[profile empty]\noutput=json\n[profile \
        print]\ncredential_process = /opt/print keys\n[profile pod]\nrole_arn = arn:p\n\
        web_identity_token_file = /t\n";

    /// What is found where these variables are set, and these two files are.
    fn asked(variables: &[(&str, &str)], profile: Option<&str>) -> Result<String, String> {
        let home = tempfile::tempdir_in("/tmp").expect("there is room");
        let aws = home.path().join(".aws");
        fs::create_dir(&aws).expect("it is made");
        fs::write(aws.join("credentials"), CREDENTIALS).expect("it is written");
        fs::write(aws.join("config"), CONFIG).expect("it is written");
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let surroundings = Surroundings {
            variable: &variable,
            home: Some(home.path().to_owned()),
            maker: variables
                .iter()
                .find(|(key, _)| *key == "maker")
                .map(|(_, by)| (*by).to_owned()),
        };
        let asked = surroundings.s3_options(profile);
        let (options, _) = asked.map_err(|failure| failure.to_string())?;
        let region = options.region.unwrap_or_default();
        Ok(match options.credentials {
            S3Credentials::Keys { access_key_id, secret_access_key, session_token } => {
                let token = session_token.unwrap_or_default();
                format!("{access_key_id} {secret_access_key} {token} {region}")
            }
            other => format!("{other:?} {region}"),
        })
    }

    const NOWHERE: [(&str, &str); 2] =
        [("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"), ("AWS_CONFIG_FILE", "/nowhere")];

    #[test]
    fn keys_are_those_of_the_address_then_of_the_environment_then_of_the_files() {
        let keys = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e")];
        let of = |more: &[(&'static str, &'static str)]| [&keys[..], more].concat();
        assert_eq!(asked(&[], None).as_deref(), Ok("D d/+\\\"=  eu-west-1"));
        assert_eq!(asked(&[], Some("up")).as_deref(), Ok("U u t eu-north-1"));
        assert_eq!(asked(&[("AWS_PROFILE", "up")], None).as_deref(), Ok("U u t eu-north-1"));
        assert_eq!(asked(&keys, None).as_deref(), Ok("E e  eu-west-1"));
        assert_eq!(asked(&keys, Some("up")).as_deref(), Ok("U u t eu-north-1"));
        let with_token = of(&[("AWS_SESSION_TOKEN", "T"), ("AWS_REGION", "r")]);
        assert_eq!(asked(&with_token, None).as_deref(), Ok("E e T r"));
        assert_eq!(asked(&of(&NOWHERE), None).as_deref(), Ok("E e  "));
    }

    #[test]
    fn where_there_are_no_keys_nobody_asks_or_somebody_else_is_asked_for_them() {
        assert_eq!(asked(&NOWHERE, None).as_deref(), Ok("Anonymous "));
        for (variables, found) in [
            (
                [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:x")],
                "WebIdentity { role: \"arn:x\", .. } ",
            ),
            (
                [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/t"), ("maker", "Amazon EC2")],
                "Container { uri: \"http://169.254.170.2/t\", token: None } ",
            ),
            (
                [
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://h"),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t"),
                ],
                "Container { uri: \"http://h\", token: InFile(\"/t\") } ",
            ),
            (
                [
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://h"),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hush"),
                ],
                "Container { uri: \"http://h\", token: Given(Secret) } ",
            ),
            (
                [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://h/"), ("x", "")],
                "Instance { endpoint: \"http://h\" } ",
            ),
            (
                [("maker", "Amazon EC2\n"), ("x", "")],
                "Instance { endpoint: \"http://169.254.169.254\" } ",
            ),
            ([("maker", "Amazon EC2\n"), ("AWS_EC2_METADATA_DISABLED", "true")], "Anonymous "),
        ] {
            assert_eq!(asked(&[&NOWHERE[..], &variables].concat(), None).as_deref(), Ok(found));
        }
    }

    #[test]
    fn a_profile_may_have_a_command_or_a_token_in_place_of_keys() {
        assert_eq!(asked(&[], Some("print")).as_deref(), Ok("Process { .. } "));
        assert_eq!(asked(&[], Some("pod")).as_deref(), Ok("WebIdentity { role: \"arn:p\", .. } "));
    }

    #[test]
    fn a_profile_that_is_named_has_to_have_keys() {
        for (profile, said) in [
            ("absent", "there is no profile `absent`"),
            ("role", "the profile `role` has `role_arn`, which is not understood here"),
            ("empty", "the profile `empty` has no `aws_access_key_id`"),
        ] {
            let error = asked(&[], Some(profile)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
