//! What S3 says went wrong: an answer with a code and a message, as XML.

use ferry_store::http::HttpError;
use ferry_store::message::{beginning, harmless};

use crate::CacheError;

/// Where the code ends in what [`explain`] makes.
const END: &str = ": ";

/// The body of an answer that is an error, as `Code: message`; how it begins, if it is none of
/// S3's.
pub(super) fn explain(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let Some(code) = element(&text, "Code").filter(|code| is_code(code)) else {
        return beginning(body);
    };
    let mut told = vec![harmless(element(&text, "Message").unwrap_or_default().trim())];
    // Who asked in the wrong place is told the right one.
    for name in ["Region", "Endpoint"] {
        told.extend(element(&text, name).map(|value| format!("({name}: {})", harmless(value))));
    }
    told.retain(|part| !part.is_empty());
    let message = told.join(" ");
    format!("{code}{END}{message}")
}

/// What S3 says, as an error of ours; any other as it is.
pub(super) fn understand(error: HttpError) -> CacheError {
    match error {
        HttpError::Status { url, method, status, attempts, beginning } => {
            match beginning.split_once(END).filter(|(code, _)| is_code(code)) {
                Some((code, message)) => CacheError::S3 {
                    url,
                    method,
                    status,
                    code: code.to_owned(),
                    message: message.to_owned(),
                    attempts,
                },
                None => HttpError::Status { url, method, status, attempts, beginning }.into(),
            }
        }
        other => other.into(),
    }
}

/// Whether it means that there is no such file. Who may not list a bucket is told "access denied"
/// of what is not in it; `is_first` says that nothing else was asked for yet, and then it means
/// what it says.
pub(super) fn is_absent(error: &CacheError, is_first: bool) -> bool {
    match error {
        CacheError::S3 { code, .. } => match code.as_str() {
            "NoSuchKey" => true,
            "AccessDenied" => !is_first,
            _ => false,
        },
        // The answer to `HEAD` says nothing more.
        CacheError::Http(error) => match error.status() {
            Some(404) => true,
            Some(403) => !is_first,
            _ => false,
        },
        _ => false,
    }
}

fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: &[u8] = b"<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>The \
        bucket does not exist\x1b</Message></Error>";

    fn answer(status: u16, body: &[u8]) -> CacheError {
        let url = "http://host/b/x".to_owned();
        let beginning = explain(body);
        understand(HttpError::Status { url, method: "GET", status, attempts: 2, beginning })
    }

    #[test]
    fn what_s3_says_is_shown_with_its_code() {
        let shown = answer(404, ABSENT).to_string();
        let expected = "GET http://host/b/x: S3 answers 404 NoSuchBucket: The bucket does not \
                        exist\\u{1b} (2 attempts)";
        assert_eq!(shown, expected);
        let elsewhere =
            b"<Error><Code>PermanentRedirect</Code><Message>No</Message><Region>eu-west-1\
            </Region></Error>";
        assert!(answer(301, elsewhere).to_string().contains("No (Region: eu-west-1)"));
        let html = answer(502, b"<html>Bad gateway</html>").to_string();
        assert!(html.contains("502 Bad Gateway") && html.contains("<html>"), "{html}");
    }

    #[test]
    fn an_absent_bucket_is_not_an_absent_file() {
        let of = |code: &str| format!("<Error><Code>{code}</Code></Error>").into_bytes();
        assert!(!is_absent(&answer(404, ABSENT), false));
        assert!(is_absent(&answer(404, &of("NoSuchKey")), true));
        assert!(is_absent(&answer(403, &of("AccessDenied")), false));
        assert!(!is_absent(&answer(403, &of("AccessDenied")), true));
        assert!(!is_absent(&answer(403, &of("SignatureDoesNotMatch")), false));
        assert!(is_absent(&answer(404, b""), true));
        assert!(!is_absent(&answer(500, b""), false));
    }
}
