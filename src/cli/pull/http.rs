//! Files from a server that speaks as huggingface.co does: redirects that say what the file is, and ranges.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, anyhow, bail, ensure};
use rustls::crypto::ring;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode},
    tls::{Certificate, RootCerts, TlsConfig},
};

use super::catalogue::sha256;

/// Redirects followed for one file; huggingface.co needs two at most.
const REDIRECTS: usize = 5;
/// Nothing of the answer, or of the file, for this long ends the transfer.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a file did not come.
#[derive(Debug)]
pub enum Problem {
    /// No server answered, so none will for other files.
    Unreachable(String),
    /// This file cannot be had, or not now.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// A server.
pub struct Http {
    agent: Agent,
    /// Scheme, name and port of the server that was named: the only one that sees the token.
    origin: String,
    token: Option<String>,
}

/// What an earlier transfer has left.
pub struct Kept {
    /// Its length.
    pub bytes: u64,
    /// What the server called the file then.
    pub etag: String,
}

/// A file about to come.
pub struct Answer {
    /// The server's name for this content, for going on later.
    pub etag: Option<String>,
    /// Its SHA-256, where the server says it.
    pub sha256: Option<String>,
    /// The length of the whole file.
    pub bytes: u64,
    /// How much of what was kept is its beginning.
    pub from: u64,
    /// The rest.
    pub body: Box<dyn Read>,
}

/// What the headers of all answers on the way to a file say of it.
#[derive(Default)]
struct Told {
    /// `x-linked-etag`: of a large file the SHA-256 of its content.
    etag: Option<String>,
    /// `x-linked-size`.
    bytes: Option<u64>,
}

impl Http {
    /// A client for an endpoint, `https://huggingface.co` or a mirror, without `/` at its end.
    ///
    /// # Errors
    /// When it is no address of a server, or the token is none.
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self> {
        let Some(origin) = origin(endpoint) else {
            bail!("`{endpoint}` is no server: an address begins with https:// or http://");
        };
        ensure!(!endpoint.contains(['?', '#', '@', ' ']), "`{endpoint}` has more than a server and a path");
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            bail!("HF_TOKEN holds what no token does");
        }
        // A token is no secret any more once it went over an open line; this machine's own servers are not one.
        let host = origin.split("://").nth(1).unwrap_or_default();
        let here = ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|name| host.strip_prefix(name).is_some_and(|port| port.is_empty() || port.starts_with(':')));
        let token = token.filter(|_| origin.starts_with("https://") || here);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("flow/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_per_read(Some(SILENCE))
            .tls_config(tls(origin.starts_with("https://"))?)
            .build()
            .new_agent();
        Ok(Self { agent, origin: origin.to_owned(), token })
    }

    /// Asks for a file, or for what is missing of it.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn get(&self, url: &str, kept: Option<&Kept>) -> Result<Answer, Problem> {
        if let Some(kept) = kept
            && let Some(answer) = self.go_on(url, kept)?
        {
            return Ok(answer);
        }
        let (told, response) = self.ask(url, None)?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response.status(), url).into());
        }
        answer(&told, response, 0)
    }

    /// The rest of a file, if it still is the one of which something was kept.
    fn go_on(&self, url: &str, kept: &Kept) -> Result<Option<Answer>, Problem> {
        let (told, response) = self.ask(url, Some(kept))?;
        let own = etag(response.headers(), "etag");
        let same = told.etag.as_ref().or(own.as_ref()) == Some(&kept.etag);
        let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
        let range = range.and_then(|range| range.strip_prefix("bytes ")).unwrap_or_default().to_owned();
        match response.status() {
            StatusCode::PARTIAL_CONTENT if same && range.starts_with(&format!("{}-", kept.bytes)) => {
                answer(&told, response, kept.bytes).map(Some)
            }
            // Nothing is left to come: only the last step was missing.
            StatusCode::RANGE_NOT_SATISFIABLE if same && range == format!("*/{}", kept.bytes) => {
                let answer = answer(&told, response, kept.bytes)?;
                Ok(Some(Answer { body: Box::new(io::empty()), ..answer }))
            }
            _ => Ok(None),
        }
    }

    /// Follows redirects to the file, with what all answers on the way say of it.
    fn ask(&self, url: &str, kept: Option<&Kept>) -> Result<(Told, Response<Body>), Problem> {
        let mut url = url.to_owned();
        let mut told = Told::default();
        let mut kept = kept;
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| origin(&url) == Some(&self.origin)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if let Some(kept) = kept {
                request = request.header("range", format!("bytes={}-", kept.bytes));
            }
            let response = request.call().map_err(|error| unanswered(&url, error))?;
            told.etag = told.etag.or_else(|| etag(response.headers(), "x-linked-etag"));
            told.bytes = told.bytes.or_else(|| number(response.headers(), "x-linked-size"));
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((told, response));
            }
            // Another file by now: all of it is wanted.
            kept = kept.filter(|kept| told.etag.as_ref().is_none_or(|now| *now == kept.etag));
            url = next(&url, response.headers())?;
        }
        Err(anyhow!("`{url}` leads on and on: more than {REDIRECTS} redirects").into())
    }
}

/// What comes, once it is clear that it does.
fn answer(told: &Told, response: Response<Body>, from: u64) -> Result<Answer, Problem> {
    let headers = response.headers();
    let whole = match from {
        0 => number(headers, "content-length"),
        _ => headers
            .get("content-range")
            .and_then(|range| range.to_str().ok()?.rsplit('/').next()?.parse().ok()),
    };
    let bytes = match (told.bytes, whole) {
        (Some(linked), Some(whole)) if linked != whole => {
            return Err(anyhow!("the server says both {linked} and {whole} bytes").into());
        }
        (linked, whole) => linked.or(whole),
    };
    let Some(bytes) = bytes else {
        return Err(anyhow!("the server does not say how long the file is").into());
    };
    let etag = told.etag.clone().or_else(|| etag(headers, "etag"));
    let sha256 = told.etag.as_deref().and_then(sha256);
    Ok(Answer { etag, sha256, bytes, from, body: Box::new(response.into_body().into_reader()) })
}

/// TLS by rustls, trusting whom the system trusts: a company's own mirror has its certificate there and nowhere else.
fn tls(needed: bool) -> Result<TlsConfig> {
    let found = rustls_native_certs::load_native_certs();
    if needed && found.certs.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        bail!("this system has no certificates to check a server by{why}; SSL_CERT_FILE names some");
    }
    let roots = RootCerts::from(found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned()));
    let provider = Arc::new(ring::default_provider());
    Ok(TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(roots).build())
}

/// `https://host:port` of an address, if it has such a beginning.
fn origin(url: &str) -> Option<&str> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme))?;
    let host = url[scheme.len()..].find(['/', '?', '#']).map_or(url.len(), |end| scheme.len() + end);
    (host > scheme.len()).then(|| &url[..host])
}

/// Where a redirect leads: to another server, or elsewhere on the same one.
fn next(url: &str, headers: &HeaderMap) -> Result<String> {
    let location = headers.get("location").and_then(|location| location.to_str().ok()).unwrap_or_default();
    let here = origin(url).unwrap_or_default();
    let next = match location.strip_prefix('/') {
        Some(path) if !path.starts_with('/') => format!("{here}{location}"),
        _ => location.to_owned(),
    };
    ensure!(origin(&next).is_some(), "`{url}` leads to `{location}`, which is no address");
    if here.starts_with("https://") && !next.starts_with("https://") {
        bail!("`{url}` leads to `{next}`, which is not encrypted");
    }
    Ok(next)
}

/// An entity tag without quotes; a weak one says nothing of the bytes.
fn etag(headers: &HeaderMap, name: &str) -> Option<String> {
    let tag = headers.get(name)?.to_str().ok()?.trim();
    let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
    (!tag.is_empty() && tag.len() <= 200).then(|| tag.to_owned())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn unanswered(url: &str, error: ureq::Error) -> Problem {
    use ureq::Error::{ConnectProxyFailed, ConnectionFailed, HostNotFound, Io, Rustls, Timeout, Tls};
    let host = origin(url).unwrap_or(url);
    match error {
        Io(_) | Timeout(_) | HostNotFound | ConnectionFailed | ConnectProxyFailed(_) | Tls(_) | Rustls(_) => {
            Problem::Unreachable(format!("{host} cannot be reached: {error}"))
        }
        error => anyhow!("{url}: {error}").into(),
    }
}

fn refusal(status: StatusCode, url: &str) -> anyhow::Error {
    let why = match status.as_u16() {
        401 | 403 => "its owner wants to know who fetches it; accept its terms there and set HF_TOKEN",
        404 | 410 => "it is not there any more",
        429 => "too much was asked of the server; try again later",
        500.. => "the server is in trouble; try again later",
        _ => "the server will not give it",
    };
    anyhow!("{url}: {status}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_server() {
        for wrong in
            ["file:///models", "huggingface.co", "ftp://a", "https://", "https://me:pass@a", "http://a/?b"]
        {
            assert!(Http::new(wrong, None).is_err(), "{wrong}");
        }
        assert_eq!(origin("http://127.0.0.1:80/a/b"), Some("http://127.0.0.1:80"));
    }

    #[test]
    fn a_token_goes_over_no_open_line() {
        let token = |endpoint: &str| Http::new(endpoint, Some("hf_x\n".into())).unwrap().token;
        assert_eq!(token("http://mirror.example"), None);
        assert_eq!(token("http://127.0.0.1.example"), None);
        assert_eq!(token("http://127.0.0.1:8000/hf").as_deref(), Some("hf_x"));
    }

    #[test]
    fn a_redirect_never_leaves_encryption() {
        let to = |location: &str| {
            let headers = HeaderMap::from_iter([("location".parse().unwrap(), location.parse().unwrap())]);
            next("https://a.example/x", &headers).map_err(|error| error.to_string())
        };
        assert_eq!(to("/y?z").unwrap(), "https://a.example/y?z");
        assert_eq!(to("https://b.example/y").unwrap(), "https://b.example/y");
        assert!(to("http://b.example/y").unwrap_err().contains("not encrypted"));
        for wrong in ["//b.example/y", "file:///etc/passwd", ""] {
            assert!(to(wrong).unwrap_err().contains("no address"), "{wrong}");
        }
    }
}
