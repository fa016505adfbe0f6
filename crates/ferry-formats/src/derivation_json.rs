//! Derivations as JSON: what `nix derivation show` prints and `nix derivation add` takes.
//!
//! Written is version 4, that of Nix 2.34 (`derivation-v4.yaml` in Nix's manual). Read are also
//! the earlier ones: version 3 (base names of paths, `inputSrcs` and `inputDrvs`), version 2
//! (whole paths, and no version; Nix 2.26) and version 1 (the method in front of the algorithm,
//! `r:sha256`, and lists of outputs; Nix 2.8).

use serde_json::{Map, Value, json};

use crate::derivation::{Derivation, DerivationError};
use crate::{HashAlgorithm, NixHash, StoreDir, StorePath, nixbase32};

/// The version written.
pub const VERSION: u64 = nix_derivation::json::VERSION;

/// A derivation that somebody wrote down, with what they claim about it.
#[derive(Clone, Debug)]
pub struct GivenDerivation {
    /// The derivation. An output that has no path yet gets one, if there is one before it is
    /// built, by [`OutputPaths::complete`](crate::derivation::OutputPaths::complete).
    pub derivation: Derivation,
    /// Its own path, if that was said.
    pub path: Option<StorePath>,
    /// Paths of fixed outputs, which earlier versions say although they follow.
    pub outputs: Vec<(String, StorePath)>,
}

/// One derivation in version 4, in one line.
///
/// # Errors
/// When it holds bytes that are not text: JSON has no place for them.
pub fn write(derivation: &Derivation) -> Result<Vec<u8>, DerivationError> {
    derivation.to_json_bytes().map_err(|error| failed(derivation.name(), error))
}

/// Reads one derivation, several behind each other, a list of them, an object that has them by
/// path, or what `nix derivation show` prints.
///
/// # Errors
/// [`DerivationError::Json`] for what is none of these.
pub fn read(text: &[u8], store_dir: &StoreDir) -> Result<Vec<GivenDerivation>, DerivationError> {
    let mut found = Vec::new();
    for document in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
        match document.map_err(|error| failed("", error))? {
            Value::Array(list) => {
                for derivation in list {
                    found.push(one(None, derivation, store_dir)?);
                }
            }
            Value::Object(object) if is_derivation(&object) => {
                found.push(one(None, Value::Object(object), store_dir)?);
            }
            Value::Object(mut object) => {
                let by_path = match object.remove("derivations") {
                    Some(Value::Object(derivations)) => derivations,
                    Some(_) => return Err(failed("", "`derivations` is not an object")),
                    None => object,
                };
                for (path, derivation) in by_path {
                    found.push(one(Some(&path), derivation, store_dir)?);
                }
            }
            _ => return Err(failed("", "neither an object nor a list")),
        }
    }
    Ok(found)
}

fn failed(what: &str, reason: impl ToString) -> DerivationError {
    DerivationError::Json { path: what.chars().take(256).collect(), reason: reason.to_string() }
}

fn is_derivation(object: &Map<String, Value>) -> bool {
    object.contains_key("builder") && object.contains_key("outputs")
}

fn one(
    key: Option<&str>,
    value: Value,
    store_dir: &StoreDir,
) -> Result<GivenDerivation, DerivationError> {
    let stated = value.get("name").and_then(Value::as_str).map(str::to_owned);
    let what = key.map(str::to_owned).or(stated).unwrap_or_default();
    read_one(key, value, store_dir).map_err(|reason| failed(&what, reason))
}

fn read_one(
    key: Option<&str>,
    value: Value,
    store_dir: &StoreDir,
) -> Result<GivenDerivation, String> {
    let Value::Object(mut object) = value else { return Err("it is not an object".to_owned()) };
    let path = key.map(|path| parse_path(path, store_dir)).transpose()?;
    if let Some(path) = path.as_ref().filter(|path| !path.is_derivation()) {
        return Err(format!("{path} is not the path of a derivation"));
    }
    match object.get("version").map(Value::as_u64) {
        Some(Some(VERSION)) => {}
        None | Some(Some(3)) => earlier(&mut object)?,
        Some(version) => {
            let found = version.map(|version| version.to_string()).unwrap_or_default();
            return Err(format!("version {found} is not known; known are {VERSION} and earlier"));
        }
    }
    if let (None, Some(path)) = (object.get("name"), &path) {
        let name = path.name().strip_suffix(".drv").unwrap_or_default();
        object.insert("name".to_owned(), json!(name));
    }
    let inputs = object.get_mut("inputs").ok_or("it has no `inputs`")?;
    settle_inputs(inputs, store_dir)?;
    let mut claimed = Vec::new();
    if let Some(Value::Object(outputs)) = object.get_mut("outputs") {
        for (name, output) in outputs {
            let stated = settle_output(output, store_dir)
                .map_err(|reason| format!("output `{name}`: {reason}"))?;
            claimed.extend(stated.map(|path| (name.clone(), path)));
        }
    }
    let bytes = serde_json::to_vec(&Value::Object(object)).map_err(|error| error.to_string())?;
    let derivation = Derivation::from_json_bytes_in(&bytes, store_dir.clone())
        .map_err(|error| error.to_string())?;
    Ok(GivenDerivation { derivation, path, outputs: claimed })
}

/// Turns what was before version 4 into version 4, paths and outputs aside.
fn earlier(object: &mut Map<String, Value>) -> Result<(), String> {
    let sources = object.remove("inputSrcs").ok_or("it has no `inputSrcs`")?;
    let derivations = object.remove("inputDrvs").ok_or("it has no `inputDrvs`")?;
    object.insert("inputs".to_owned(), json!({ "srcs": sources, "drvs": derivations }));
    object.insert("version".to_owned(), json!(VERSION));
    // Where structured attributes were before they had a place of their own.
    let structured = object.get_mut("env").and_then(Value::as_object_mut);
    if let Some(Value::String(text)) = structured.and_then(|env| env.remove("__json")) {
        let parsed: Value =
            serde_json::from_str(&text).map_err(|error| format!("`__json`: {error}"))?;
        object.insert("structuredAttrs".to_owned(), parsed);
    }
    Ok(())
}

/// Base names for paths, and objects for lists of outputs.
fn settle_inputs(inputs: &mut Value, store_dir: &StoreDir) -> Result<(), String> {
    if let Some(sources) = inputs.get_mut("srcs").and_then(Value::as_array_mut) {
        for source in sources {
            settle_path(source, store_dir)?;
        }
    }
    if let Some(derivations) = inputs.get_mut("drvs").and_then(Value::as_object_mut) {
        for (path, mut input) in std::mem::take(derivations) {
            if input.is_array() {
                input = json!({ "outputs": input, "dynamicOutputs": {} });
            }
            let path = parse_path(&path, store_dir)?;
            if derivations.insert(path.to_basename(), input).is_some() {
                return Err(format!("input {path} stands there twice"));
            }
        }
    }
    Ok(())
}

/// Brings an output into the form of version 4, and returns the path of a fixed one.
fn settle_output(output: &mut Value, store_dir: &StoreDir) -> Result<Option<StorePath>, String> {
    let Value::Object(output) = output else { return Err("it is not an object".to_owned()) };
    // Version 1 has the method in front of the algorithm.
    if !output.contains_key("method")
        && let Some(algorithm) = output.get("hashAlgo").and_then(Value::as_str)
    {
        let (method, algorithm) = match algorithm.rsplit_once(':') {
            None => ("flat", algorithm),
            Some(("r", algorithm)) => ("nar", algorithm),
            Some((method, algorithm)) => (method, algorithm),
        };
        let (method, algorithm) = (json!(method), json!(algorithm));
        output.insert("method".to_owned(), method);
        output.insert("hashAlgo".to_owned(), algorithm);
    }
    if output.contains_key("hash")
        && let Some(algorithm) = output.remove("hashAlgo")
    {
        let algorithm = algorithm.as_str().unwrap_or_default();
        let digest = output.get("hash").and_then(Value::as_str).unwrap_or_default();
        let hash = parse_hash(algorithm, digest)?.to_sri_string();
        output.insert("hash".to_owned(), json!(hash));
    }
    if output.contains_key("hash") {
        let path = output.remove("path");
        let path = path.as_ref().and_then(Value::as_str);
        return path.map(|path| parse_path(path, store_dir)).transpose();
    }
    output.get_mut("path").map_or(Ok(()), |path| settle_path(path, store_dir)).map(|()| None)
}

/// A digest in one of the forms that earlier versions have.
fn parse_hash(algorithm: &str, digest: &str) -> Result<NixHash, String> {
    let bad = || format!("`{digest}` is not a hash by {algorithm}");
    if let Ok(hash) = NixHash::parse(digest) {
        return Ok(hash);
    }
    if let Ok(hash) = NixHash::parse(&format!("{algorithm}:{digest}")) {
        return Ok(hash);
    }
    let algorithm: HashAlgorithm = algorithm.parse().map_err(|_| bad())?;
    let bytes = nixbase32::decode(digest.as_bytes()).map_err(|_| bad())?;
    NixHash::from_algorithm_and_digest(algorithm, &bytes).map_err(|_| bad())
}

fn settle_path(path: &mut Value, store_dir: &StoreDir) -> Result<(), String> {
    let text = path.as_str().ok_or("a path that is not a string")?;
    *path = json!(parse_path(text, store_dir)?.to_basename());
    Ok(())
}

/// A path or its base name.
fn parse_path(text: &str, store_dir: &StoreDir) -> Result<StorePath, String> {
    let parsed = match text.starts_with('/') {
        true => store_dir.parse_path(text.as_bytes()),
        false => StorePath::from_basename(text.as_bytes()),
    };
    parsed.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &str = "0f97v5h09l6sd1i4xzr4pdsmlqbzs5fg-x";

    fn given(text: &str) -> Vec<GivenDerivation> {
        read(text.as_bytes(), &StoreDir::default()).expect("derivations")
    }

    fn refused(text: &str) -> String {
        read(text.as_bytes(), &StoreDir::default()).expect_err("no derivation").to_string()
    }

    fn with(outputs: &str, more: &str) -> String {
        format!(
            r#"{{"name":"x","system":"s","builder":"b","args":[],"env":{{}},"outputs":{outputs},{more}}}"#
        )
    }

    /// One derivation in the four versions, of which the last three say its output's path.
    fn versions() -> [String; 4] {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let sri = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let input = "00000000000000000000000000000000-i.drv";
        let source = "11111111111111111111111111111111-s";
        let objects =
            |at: &str| format!(r#"{{"{at}{input}":{{"outputs":["out"],"dynamicOutputs":{{}}}}}}"#);
        let old =
            |at: &str, input: &str| format!(r#""inputSrcs":["{at}{source}"],"inputDrvs":{input}"#);
        let at = "/nix/store/";
        let path = format!("{at}{FIXED}");
        [
            with(
                &format!(r#"{{"out":{{"method":"nar","hash":"{sri}"}}}}"#),
                &format!(r#""version":4,"inputs":{{"srcs":["{source}"],"drvs":{}}}"#, objects("")),
            ),
            with(
                &format!(
                    r#"{{"out":{{"method":"nar","hashAlgo":"sha256","hash":"{hex}","path":"{FIXED}"}}}}"#
                ),
                &format!(r#""version":3,{}"#, old("", &objects(""))),
            ),
            with(
                &format!(
                    r#"{{"out":{{"method":"nar","hashAlgo":"sha256","hash":"{hex}","path":"{path}"}}}}"#
                ),
                &old(at, &objects(at)),
            ),
            with(
                &format!(r#"{{"out":{{"hashAlgo":"r:sha256","hash":"{hex}","path":"{path}"}}}}"#),
                &old(at, &format!(r#"{{"{at}{input}":["out"]}}"#)),
            ),
        ]
    }

    #[test]
    fn every_version_says_the_same() {
        let versions = versions();
        let first = given(&versions[0]).remove(0).derivation;
        for text in &versions[1..] {
            let mut read = given(text);
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].derivation, first, "{text}");
            let stated = read.remove(0).outputs;
            assert_eq!(stated[0].0, "out");
            assert_eq!(stated[0].1.to_basename(), FIXED);
        }
    }

    #[test]
    fn several_may_stand_in_each_shape() {
        let [one, ..] = versions();
        let path = "22222222222222222222222222222222-x.drv";
        for text in [
            format!("[{one},{one}]"),
            format!("{one}\n{one}"),
            format!(r#"{{"{path}":{one},"/nix/store/3{}":{one}}}"#, &path[1..]),
            format!(r#"{{"version":4,"derivations":{{"{path}":{one},"3{}":{one}}}}}"#, &path[1..]),
        ] {
            let read = given(&text);
            assert_eq!(read.len(), 2, "{text}");
            let stated = read.iter().all(|given| given.path.is_some());
            assert_eq!(stated, text.contains(path));
        }
        assert!(given("").is_empty() && given("{}").is_empty());
    }

    #[test]
    fn a_name_follows_from_a_path() {
        let [.., oldest] = versions();
        let nameless = oldest.replace(r#""name":"x","#, "");
        let text = format!(r#"{{"/nix/store/22222222222222222222222222222222-y.drv":{nameless}}}"#);
        assert_eq!(given(&text)[0].derivation.name(), "y");
        assert!(refused(&nameless).contains("name"), "{}", refused(&nameless));
    }

    #[test]
    fn what_is_no_derivation_is_refused() {
        for text in ["1", "[1]", r#"{"x":1}"#, "{", r#"{"derivations":[]}"#] {
            refused(text);
        }
        let [one, ..] = versions();
        assert!(refused(&one.replace(r#""version":4"#, r#""version":5"#)).contains("version 5"));
        assert!(
            refused(&format!(r#"{{"{FIXED}":{one}}}"#)).contains("not the path of a derivation")
        );
    }
}
