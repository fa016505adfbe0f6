//! The settings of `nix.conf` that decide what a store accepts, read as Nix reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_formats::keys::parse_public_key;

use crate::trust::{DEFAULT_TRUSTED_PUBLIC_KEY, TrustPolicy};
use crate::{Error, Result};

/// How deep `include` may go.
const MAX_INCLUDES: usize = 16;

/// A setting's value and where it was set.
#[derive(Clone, Debug)]
struct Setting {
    value: String,
    origin: String,
}

/// The settings read so far; later ones win.
#[derive(Clone, Debug, Default)]
pub struct NixConf {
    settings: BTreeMap<String, Setting>,
}

impl NixConf {
    /// Reads a file. One that does not exist says nothing.
    ///
    /// # Errors
    /// When it exists and cannot be read, or is not a configuration file.
    pub fn read_file(&mut self, file: &Path) -> Result<()> {
        self.read_nested(file, false, 0)
    }

    fn read_nested(&mut self, file: &Path, must_exist: bool, depth: usize) -> Result<()> {
        match fs::read_to_string(file) {
            Ok(text) => self.read_lines(&text, &file.display().to_string(), file.parent(), depth),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(()),
            Err(error) => Err(Error::io(format!("read {}", file.display()))(error)),
        }
    }

    /// Reads settings from text; `origin` is what to call it in messages.
    ///
    /// # Errors
    /// When a line is not a setting, or an included file cannot be read.
    pub fn read_text(&mut self, text: &str, origin: &str) -> Result<()> {
        self.read_lines(text, origin, None, 0)
    }

    fn read_lines(
        &mut self,
        text: &str,
        origin: &str,
        directory: Option<&Path>,
        depth: usize,
    ) -> Result<()> {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(first) = words.next() else { continue };
            let rest: Vec<&str> = words.collect();
            let bad = |reason: &str| Error::Setting {
                file: origin.to_owned(),
                setting: first.to_owned(),
                reason: reason.to_owned(),
            };
            match (first, rest.as_slice()) {
                ("include" | "!include", [file]) => {
                    if depth == MAX_INCLUDES {
                        return Err(bad("files include each other without end"));
                    }
                    let file = directory.map_or_else(|| PathBuf::from(file), |d| d.join(file));
                    self.read_nested(&file, first == "include", depth + 1)?;
                }
                (name, ["=", values @ ..]) => self.set(name, &values.join(" "), origin),
                _ => return Err(bad("the line is not of the form `name = value`")),
            }
        }
        Ok(())
    }

    /// Sets `name`, or appends to it where the name begins with `extra-`.
    pub fn set(&mut self, name: &str, value: &str, origin: &str) {
        let (name, extra) = match name.strip_prefix("extra-") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let name = match name {
            "binary-cache-public-keys" => "trusted-public-keys",
            "signed-binary-caches" => "require-sigs",
            name => name,
        };
        let before = if extra { self.get(name) } else { None };
        let value = match before {
            Some(before) => format!("{before} {value}"),
            None if extra && name == "trusted-public-keys" => {
                format!("{DEFAULT_TRUSTED_PUBLIC_KEY} {value}")
            }
            None => value.to_owned(),
        };
        let origin = origin.to_owned();
        self.settings.insert(name.to_owned(), Setting { value, origin });
    }

    /// The value of a setting, where it was set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(|setting| setting.value.as_str())
    }

    /// The value of a setting that is true or false, where it was set.
    ///
    /// # Errors
    /// When it is neither.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        let Some(setting) = self.settings.get(name) else { return Ok(None) };
        match setting.value.as_str() {
            "true" | "yes" | "1" | "*" => Ok(Some(true)),
            "false" | "no" | "0" | "" => Ok(Some(false)),
            other => Err(Error::Setting {
                file: setting.origin.clone(),
                setting: name.to_owned(),
                reason: format!("`{other}` is neither true nor false"),
            }),
        }
    }

    /// What `require-sigs` and `trusted-public-keys` say, with Nix's defaults.
    ///
    /// # Errors
    /// When one of them has a value that it cannot have.
    pub fn trust_policy(&self) -> Result<TrustPolicy> {
        let require_signatures = self.boolean("require-sigs")?.unwrap_or(true);
        let (keys, origin) = match self.settings.get("trusted-public-keys") {
            None => (DEFAULT_TRUSTED_PUBLIC_KEY, "the default"),
            Some(setting) => (setting.value.as_str(), setting.origin.as_str()),
        };
        let trusted_public_keys = keys
            .split_whitespace()
            .map(|text| {
                parse_public_key(text).map_err(|source| Error::Setting {
                    file: origin.to_owned(),
                    setting: "trusted-public-keys".to_owned(),
                    reason: source.to_string(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(TrustPolicy { require_signatures, trusted_public_keys })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;

    const KEY: &str = "a-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

    fn policy(text: &str) -> Result<TrustPolicy> {
        let mut conf = NixConf::default();
        conf.read_text(text, "test")?;
        conf.trust_policy()
    }

    fn names(policy: &TrustPolicy) -> Vec<&str> {
        policy.trusted_public_keys.iter().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn without_settings_signatures_of_the_default_key_are_required() {
        let policy = policy("").unwrap();
        assert!(policy.require_signatures);
        assert_eq!(names(&policy), ["cache.nixos.org-1"]);
    }

    #[test]
    fn extra_keys_are_added_to_the_default_and_plain_ones_replace_it() {
        let extra = policy(&format!("extra-trusted-public-keys = {KEY} # mine")).unwrap();
        assert_eq!(names(&extra), ["cache.nixos.org-1", "a-1"]);
        let plain = policy(&format!("trusted-public-keys = {KEY}\nrequire-sigs = false")).unwrap();
        assert_eq!(names(&plain), ["a-1"]);
        assert!(!plain.require_signatures);
    }

    #[test]
    fn a_bad_value_names_the_setting_and_the_file() {
        let error = policy("require-sigs = perhaps").unwrap_err().to_string();
        assert!(error.contains("test") && error.contains("require-sigs"), "{error}");
        let error = policy("trusted-public-keys = nonsense").unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
    }

    #[test]
    fn includes_are_read_and_circles_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nix.conf");
        fs::write(&file, "include other.conf\n!include absent.conf\n").unwrap();
        fs::write(directory.path().join("other.conf"), "require-sigs = false\n").unwrap();
        let mut conf = NixConf::default();
        conf.read_file(&file).unwrap();
        assert_eq!(conf.get("require-sigs"), Some("false"));

        fs::write(&file, "include nix.conf\n").unwrap();
        assert!(conf.read_file(&file).unwrap_err().to_string().contains("without end"));
    }
}
