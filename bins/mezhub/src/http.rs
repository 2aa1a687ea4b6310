//! Plain HTTP/1.1 on the HTTPS port, for programs that speak no gRPC: what is public and read by machines.
//!
//! There is one thing: `GET /v1/krl`, what is revoked, for `RevokedKeys` of a stock sshd.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
};
use hyper::http::Error;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mezite_auth::{Auth, PublishedList};
use mezite_net::ByteStream;

/// How long a client has for the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// The most that one connection may take, requests and answers together.
const CONNECTION: Duration = Duration::from_secs(60);

/// Largest head of a request.
const MAX_HEAD: usize = 16 * 1024;

type Answer = Response<Full<Bytes>>;

/// Serves one connection.
pub(crate) async fn serve<S: ByteStream + 'static>(stream: S, auth: Auth) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let auth = auth.clone();
        async move {
            let list = || auth.revocation_list().map_err(|error| error.to_string());
            Ok::<_, Infallible>(answer(&request, list))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection failed"),
        Err(_) => tracing::debug!("an HTTP connection took too long"),
    }
}

fn answer<B>(
    request: &Request<B>,
    list: impl FnOnce() -> Result<Arc<PublishedList>, String>,
) -> Answer {
    let found = match (request.uri().path(), request.method()) {
        ("/v1/krl", &Method::GET) => krl(request.headers(), true, list),
        ("/v1/krl", &Method::HEAD) => krl(request.headers(), false, list),
        ("/v1/krl", _) => {
            text(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n").map(|mut no| {
                no.headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                no
            })
        }
        _ => text(StatusCode::NOT_FOUND, "there is only /v1/krl here\n"),
    };
    found.unwrap_or_else(|error| {
        tracing::error!(%error, "an HTTP answer could not be built");
        let mut failed = Response::new(Full::default());
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        failed
    })
}

fn text(status: StatusCode, words: &'static str) -> Result<Answer, Error> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Full::from(words))
}

/// The list, or that it is the one the client has (RFC 9110 section 13.1.2). A list that cannot be written is an error:
/// an empty one would revoke nothing.
fn krl(
    asked: &HeaderMap,
    body: bool,
    list: impl FnOnce() -> Result<Arc<PublishedList>, String>,
) -> Result<Answer, Error> {
    let list = match list() {
        Ok(list) => list,
        Err(error) => {
            tracing::error!(error, "the revocation list could not be written");
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the list cannot be written; the hub's log says why\n",
            );
        }
    };
    let etag = format!("\"{}\"", HEXLOWER.encode(&list.digest));
    let answer = Response::builder()
        .header(ETAG, &etag)
        .header(CACHE_CONTROL, "no-cache");
    if is_known(asked, &etag) {
        return answer
            .status(StatusCode::NOT_MODIFIED)
            .body(Full::default());
    }
    let answer = answer
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, list.bytes.len());
    answer.body(if body {
        Full::from(list.bytes.clone())
    } else {
        Full::default()
    })
}

/// Whether the client says that it has this one: `*`, or a list of tags. Weak tags count too (section 8.8.3.2).
fn is_known(asked: &HeaderMap, etag: &str) -> bool {
    asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}
