//! Who asks a bucket of S3, as the environment and the files of Amazon's tools say.
//!
//! In the order of Nix and of those tools: the profile in the address, keys in the environment, the
//! profile in the files, a token for Amazon's token service, the host of a container; nobody.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ferry_store::http::{S3Credentials, S3Options};
use ini::{Ini, ParseOption, Properties};

use crate::failure::Failure;

/// What a profile may say in place of keys, none of which is understood here.
const OTHER_WAYS: [&str; 6] = [
    "role_arn",
    "credential_process",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
    "credential_source",
];

/// Where the settings are.
pub(crate) struct Surroundings<'a> {
    /// A variable of the environment.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) home: Option<PathBuf>,
}

impl Surroundings<'_> {
    /// Who asks; `profile` is the one that an address names.
    pub(crate) fn s3_options(&self, profile: Option<&str>) -> Result<S3Options, Failure> {
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
            None => match found.keys() {
                Some(keys) => keys,
                None if profile.is_some() => return Err(found.without_keys(name)),
                None => self.other_ways(),
            },
        };
        Ok(S3Options { region, credentials })
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
        if let Some(relative_uri) = self.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            return S3Credentials::Task { relative_uri };
        }
        let pod = (
            self.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        );
        match pod {
            (Some(uri), Some(token_file)) => S3Credentials::Pod { uri, token_file },
            _ => S3Credentials::Anonymous,
        }
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

    fn keys(&self) -> Option<S3Credentials> {
        Some(S3Credentials::Keys {
            access_key_id: self.get("aws_access_key_id")?,
            secret_access_key: self.get("aws_secret_access_key")?,
            session_token: self.get("aws_session_token"),
        })
    }

    fn without_keys(&self, name: &str) -> Failure {
        if self.credentials.is_none() && self.config.is_none() {
            let files = "~/.aws/credentials and ~/.aws/config";
            return Failure::new(format!("there is no profile `{name}` in {files}"))
                .hint("name another one with `profile=…` in the address, or with AWS_PROFILE");
        }
        let other = OTHER_WAYS.into_iter().find(|way| self.get(way).is_some());
        let reason = match other {
            Some(way) => format!("has `{way}`, which is not understood here, and no keys"),
            None => "has no `aws_access_key_id` and `aws_secret_access_key`".to_owned(),
        };
        Failure::new(format!("the profile `{name}` {reason}")).hint(format!(
            "put keys into the environment: eval $(aws configure export-credentials --profile \
             {name} --format env)"
        ))
    }
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
        region=eu-north-1\n[profile role]\nrole_arn=arn:x\n[profile empty]\noutput=json\n";

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
        let surroundings = Surroundings { variable: &variable, home: Some(home.path().to_owned()) };
        let options = surroundings.s3_options(profile).map_err(|failure| failure.to_string())?;
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
            ([("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/t"), ("x", "")], "Task { .. } "),
            (
                [
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://h"),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t"),
                ],
                "Pod { uri: \"http://h\", .. } ",
            ),
        ] {
            assert_eq!(asked(&[&NOWHERE[..], &variables].concat(), None).as_deref(), Ok(found));
        }
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
