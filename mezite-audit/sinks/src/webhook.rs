//! HTTPS POST of a JSON document.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use mezite_audit::{Batch, Sink, SinkError};
use mezite_net::tls::Outside;
use thiserror::Error;

use crate::failed;

/// How long a receiver may take for one batch.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of an answer's body is read; nothing in it is believed.
const ANSWER: usize = 64 * 1024;

/// Largest token.
const TOKEN: usize = 8 * 1024;

/// Where a webhook goes: `https://host[:port]/path`, and nothing in it that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

/// Why a text is not the URL of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Not a URL at all.
    #[error("it is not a URL: write https://host/path")]
    Malformed,
    /// Anything but HTTPS.
    #[error("it is not https://")]
    NotHttps,
    /// `user:password@`
    #[error("it holds a user or password: put the token into a file and name it with `token_file`")]
    User,
    /// `?…` or `#…`
    #[error(
        "it has a query or fragment, where secrets end up in logs: put the token into a file and name it with `token_file`"
    )]
    Query,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        if uri.scheme_str() != Some("https") {
            return Err(UrlError::NotHttps);
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(UrlError::Malformed);
        }
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(443),
            authority: authority.as_str().to_owned(),
            path: uri.path().to_owned(),
        })
    }
}

/// Posts events to a URL that stands in the configuration.
#[derive(Debug)]
pub struct Webhook {
    way: Outside,
    url: Url,
    token_file: Option<PathBuf>,
}

impl Webhook {
    /// A sink that posts to `url` by `way`, with the token in `token_file`, which is read for each request: a new one
    /// needs no restart.
    #[must_use]
    pub fn new(way: Outside, url: Url, token_file: Option<PathBuf>) -> Self {
        Self {
            way,
            url,
            token_file,
        }
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, SinkError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let unusable = |why: &dyn std::fmt::Display| {
            failed(format_args!(
                "the token in `{}` cannot be used: {why}",
                path.display()
            ))
        };
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|error| unusable(&error))?;
        let token = text.trim();
        if token.is_empty() || token.len() > TOKEN {
            return Err(unusable(&"it is empty or longer than 8 KiB"));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| unusable(&"it has characters that no header takes"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn post(&self, document: Vec<u8>) -> Result<(), SinkError> {
        let Url {
            host,
            port,
            authority,
            path,
        } = &self.url;
        let mut request = Request::post(path)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("mezhub/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = self.authorization().await? {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(Full::new(Bytes::from(document)))
            .map_err(failed)?;
        let stream = self.way.connect(host, *port).await.map_err(failed)?;
        let broken = |error: hyper::Error| {
            failed(format_args!("{authority} did not answer in HTTP: {error}"))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            let status = answer.status();
            // Read so that the connection ends in order; how it ends changes nothing any more.
            drop(Limited::new(answer.into_body(), ANSWER).collect().await);
            drop(sender);
            Ok(status)
        };
        let (status, _) = tokio::join!(exchange, connection);
        let status = status?;
        if status.is_success() {
            Ok(())
        } else if status.is_redirection() {
            Err(failed(format_args!(
                "{authority} answered {status}: redirects are not followed, so name the last address in the configuration"
            )))
        } else {
            Err(failed(format_args!("{authority} answered {status}")))
        }
    }
}

/// `{"first":…,"last":…,"events":[…],"checkpoint":"…"}` with the stored bytes as they are.
fn document(batch: &Batch<'_>) -> Vec<u8> {
    let mut text = b"{".to_vec();
    if let (Some(first), Some(last)) = (batch.events.first(), batch.events.last()) {
        let (first, last) = (first.sequence, last.sequence);
        text.extend_from_slice(format!("\"first\":{first},\"last\":{last},").as_bytes());
    }
    text.extend_from_slice(b"\"events\":[");
    for (index, event) in batch.events.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&event.body);
    }
    text.push(b']');
    if let Some(note) = batch.checkpoint {
        let note = serde_json::Value::from(note).to_string();
        text.extend_from_slice(format!(",\"checkpoint\":{note}").as_bytes());
    }
    text.push(b'}');
    text
}

#[async_trait]
impl Sink for Webhook {
    async fn deliver(&self, batch: &Batch<'_>) -> Result<(), SinkError> {
        match tokio::time::timeout(PATIENCE, self.post(document(batch))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed(format_args!(
                "{} did not take a batch within {} seconds",
                self.url.authority,
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn acknowledged(&self) -> Result<u64, SinkError> {
        // The receiver has no call to ask with.
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_79_no_url_can_hold_a_secret_or_lead_to_another_scheme() {
        let parse = |text: &str| text.parse::<Url>();
        for (text, error) in [
            ("https://user:sesame@siem.example/", UrlError::User),
            ("https://token@siem.example/", UrlError::User),
            ("https://siem.example/?token=sesame", UrlError::Query),
            ("https://siem.example/#sesame", UrlError::Query),
            ("http://siem.example/", UrlError::NotHttps),
            ("file:///etc/passwd", UrlError::Malformed),
            ("gopher://siem.example/", UrlError::NotHttps),
            ("siem.example", UrlError::NotHttps),
            ("https://", UrlError::Malformed),
            ("", UrlError::Malformed),
            ("https://siem example/", UrlError::Malformed),
        ] {
            let found = parse(text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("sesame"));
        }
        let url = parse("https://[2001:db8::7]:8443/audit/in").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("2001:db8::7", 8443, "/audit/in")
        );
        assert_eq!(parse("https://siem.example").unwrap().path, "/");
    }
}
