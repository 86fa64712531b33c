//! The sending side of HTTP: one connection, one request at a time, each a single buffer written at once.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use testkit::stream::{self, Stream};

use crate::http::{Headers, HttpError, MessageReader};
use crate::tls::Tls;

/// Where requests go: `http://host[:port]/path`, or the same with `https`.
#[derive(Clone, Debug)]
pub struct Url {
    is_https: bool,
    /// What https needs.
    tls: Option<Tls>,
    /// Host and port as they were written, for the Host header.
    authority: String,
    /// Path and query, from the slash on.
    path: String,
}

/// Why a text is no [`Url`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another protocol, or none.
    #[error("a URL here begins with http:// or https://")]
    Scheme,
    /// Nothing where the host should be, or a port that is none.
    #[error("there must be a host, and the port must be a number")]
    Authority,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        if !matches!(scheme, "http" | "https") {
            return Err(UrlError::Scheme);
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        if authority.is_empty() || authority.starts_with(':') || !port(authority).is_none_or(is_port) {
            return Err(UrlError::Authority);
        }
        let (authority, path) = (authority.to_owned(), path.to_owned());
        Ok(Self { is_https: scheme == "https", tls: None, authority, path })
    }
}

/// The port that an authority names, if it does; the colons of an IPv6 address stand in brackets.
fn port(authority: &str) -> Option<&str> {
    authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'))
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Url {
    /// The same, with what https needs.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// The same, with what https needs from another.
    #[must_use]
    pub fn with_tls_of(&self, other: &Self) -> Self {
        self.clone().with_tls(other.tls.clone())
    }

    /// The same, with this path if it has none.
    #[must_use]
    pub fn or_path(self, path: &str) -> Self {
        if self.path == "/" { Self { path: path.to_owned(), ..self } } else { self }
    }

    /// Whether it is https, and it is not known whom to trust.
    pub fn lacks_tls(&self) -> bool {
        self.is_https && self.tls.is_none()
    }

    /// The addresses of its host; port 80 or 443 if it names none.
    fn addresses(&self) -> io::Result<impl Iterator<Item = SocketAddr>> {
        let default = if self.is_https { ":443" } else { ":80" };
        let port = if port(&self.authority).is_some() { "" } else { default };
        format!("{}{port}", self.authority).to_socket_addrs()
    }

    /// A connection to it over a socket.
    fn over(&self, tcp: TcpStream) -> io::Result<Stream> {
        if !self.is_https {
            return Ok(Box::new(tcp));
        }
        let tls = self.tls.as_ref().ok_or_else(|| io::Error::other("https needs authorities to trust"))?;
        let host =
            port(&self.authority).and_then(|port| self.authority.strip_suffix(port)?.strip_suffix(':'));
        let host = host.unwrap_or(&self.authority).trim_matches(['[', ']']).to_owned();
        stream::connect(tcp, Arc::clone(&tls.0), ServerName::try_from(host).map_err(io::Error::other)?)
    }

    /// A whole POST, head and body in one buffer; `format` are the headers that tell what the body is.
    pub fn push(&self, format: &[(&str, &str)], headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: loadgen/{}\r\nContent-Length: {}\r\n",
            self.path,
            self.authority,
            env!("CARGO_PKG_VERSION"),
            body.len(),
        );
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in format.iter().copied().chain(headers) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        message
    }
}

impl Url {
    /// A request that is sent on to it as it came, with these headers. `path` is used if the URL has none of its own.
    pub fn request(&self, method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
        let path = if self.path == "/" { path } else { &self.path };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.authority);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        message
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// All headers.
    pub headers: Headers,
}

/// A connection that is opened when it is needed and kept while the server keeps it.
pub struct Client {
    url: Url,
    timeout: Duration,
    open: Option<MessageReader<Stream>>,
    body: Vec<u8>,
}

impl Client {
    /// A client that waits at most `timeout` for a connection, for a write and for each part of an answer.
    pub fn new(url: Url, timeout: Duration) -> Self {
        Self { url, timeout, open: None, body: Vec::new() }
    }

    /// Where its requests go.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether there is a connection, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.open.is_some()
    }

    /// Connects, if it is not connected.
    ///
    /// # Errors
    /// When the host has no address that takes the connection, or the TLS handshake fails.
    pub fn connect(&mut self) -> io::Result<()> {
        if self.is_connected() {
            return Ok(());
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for addr in self.url.addresses()? {
            match TcpStream::connect_timeout(&addr, self.timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(self.timeout))?;
                    stream.set_write_timeout(Some(self.timeout))?;
                    self.open = Some(MessageReader::new(self.url.over(stream)?));
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Closes the connection, if there is one.
    pub fn disconnect(&mut self) {
        if let Some(mut reader) = self.open.take() {
            reader.inner_mut().finish();
        }
    }

    /// Writes a whole request and reads the whole answer, whose body is then in [`Client::body`].
    ///
    /// # Errors
    /// When there is no connection, no answer in time, or none that is HTTP. The connection is closed then.
    pub fn exchange(&mut self, message: &[u8]) -> Result<Answer, HttpError> {
        self.body.clear();
        self.connect()?;
        let Some(reader) = self.open.as_mut() else { return Err(HttpError::Closed) };
        // A server may answer, and close, before it has read all: so a failed write is no reason not to read.
        let stream = reader.inner_mut();
        let written = stream.write_all(message).and_then(|()| stream.flush());
        let answer = reader.response_head().and_then(|head| {
            reader.body(head.framing, &mut self.body)?;
            Ok((Answer { status: head.status, headers: head.headers }, head.keep_alive))
        });
        match (&written, &answer) {
            (Ok(()), Ok((_, true))) => {}
            (Ok(()), Ok((_, false))) => self.disconnect(),
            _ => self.open = None,
        }
        match (written, answer) {
            (_, Ok((answer, _))) => Ok(answer),
            (Err(error), Err(_)) => Err(error.into()),
            (Ok(()), Err(error)) => Err(error),
        }
    }

    /// Body of the last answer.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Gets a page.
///
/// # Errors
/// When there is no answer.
pub fn get(url: &Url, timeout: Duration) -> Result<(u16, Vec<u8>), HttpError> {
    let mut client = Client::new(url.clone(), timeout);
    let message =
        format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.path, url.authority);
    let answer = client.exchange(message.as_bytes())?;
    Ok((answer.status, std::mem::take(&mut client.body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url: Url = "http://localhost:8081/push?x=1".parse().unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("localhost:8081", "/push?x=1"));
        assert_eq!(url.to_string(), "http://localhost:8081/push?x=1");
        assert_eq!(url.clone().or_path("/x").to_string(), url.to_string());
        let url: Url = "http://localhost:8081".parse().unwrap();
        assert_eq!(url.or_path("/v1/logs").to_string(), "http://localhost:8081/v1/logs");
        let url: Url = "https://localhost:8081/push".parse().unwrap();
        assert_eq!((url.to_string().as_str(), url.lacks_tls()), ("https://localhost:8081/push", true));
        for (text, addr) in [
            ("http://[::1]:9", "[::1]:9"),
            ("http://[::1]/x", "[::1]:80"),
            ("http://127.0.0.1", "127.0.0.1:80"),
            ("https://127.0.0.1/x", "127.0.0.1:443"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.addresses().unwrap().collect::<Vec<_>>(), [addr.parse().unwrap()], "{text}");
        }
        let error = |text: &str| text.parse::<Url>().unwrap_err();
        assert_eq!([error("ftp://a/"), error("a/")], [UrlError::Scheme; 2]);
        assert_eq!([error("http://:80/"), error("https://a:x/")], [UrlError::Authority; 2]);
    }
}
