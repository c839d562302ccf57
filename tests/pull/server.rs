//! A server of files on this machine alone, which speaks as huggingface.co does and misbehaves as told.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What a server does with a request for a path.
#[derive(Clone)]
pub enum Answer {
    /// A file, whole or from where it is asked.
    File(File),
    /// Leads to another address, saying of what file.
    To { location: String, headers: Vec<(&'static str, String)> },
    /// Another status.
    Status(u16),
}

/// A file and the lies told of it.
#[derive(Clone, Default)]
pub struct File {
    pub bytes: Vec<u8>,
    pub etag: String,
    /// Headers besides.
    pub headers: Vec<(&'static str, String)>,
    /// What `Content-Length` says, if not the truth; an empty text leaves it out.
    pub length: Option<String>,
    /// Closes after so many bytes.
    pub stops_after: Option<usize>,
}

/// A running server. It ends with the test's process; its threads hold nothing.
pub struct Server {
    pub address: String,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    headers: HashMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            answers: Arc::default(),
            requests: Arc::default(),
        };
        let (answers, requests) = (server.answers.clone(), server.requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming().take(100).flatten() {
                let (answers, requests) = (answers.clone(), requests.clone());
                thread::spawn(move || serve(&stream, &answers, &requests));
            }
        });
        server
    }

    pub fn answer(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// The requests since this was asked last.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// One request a connection; a client that has gone away is none of the server's business.
fn serve(
    stream: &TcpStream,
    answers: &Mutex<HashMap<String, Answer>>,
    requests: &Mutex<Vec<Request>>,
) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut lines = BufReader::new(stream.take(1 << 16)).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.take_while(|line| !line.is_empty());
    let headers: HashMap<_, _> = headers
        .filter_map(|line| {
            Some((line.split_once(": ")?.0.to_lowercase(), line.split_once(": ")?.1.to_owned()))
        })
        .collect();
    let range =
        headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    requests.lock().unwrap().push(Request { path: path.clone(), headers });
    let answer = answers.lock().unwrap().get(&path).cloned().unwrap_or(Answer::Status(404));
    let mut out = stream;
    match answer {
        Answer::Status(status) => {
            write!(out, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()
        }
        Answer::To { location, headers } => {
            write!(
                out,
                "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n"
            )
            .ok()?;
            for (name, value) in headers {
                write!(out, "{name}: {value}\r\n").ok()?;
            }
            write!(out, "\r\n").ok()
        }
        Answer::File(file) => file.send(out, range),
    }
}

impl File {
    fn send(&self, mut out: &TcpStream, range: Option<usize>) -> Option<()> {
        let whole = self.bytes.len();
        if range.is_some_and(|from| from >= whole) {
            write!(out, "HTTP/1.1 416 X\r\nETag: \"{}\"\r\nContent-Range: bytes */{whole}\r\n", self.etag)
                .ok()?;
            return write!(out, "Content-Length: 0\r\nConnection: close\r\n\r\n").ok();
        }
        let from = range.unwrap_or(0);
        match range {
            Some(from) => {
                let last = whole - 1;
                write!(out, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{whole}\r\n")
                    .ok()?;
            }
            None => write!(out, "HTTP/1.1 200 OK\r\n").ok()?,
        }
        let length = self.length.clone().unwrap_or_else(|| (whole - from).to_string());
        if !length.is_empty() {
            write!(out, "Content-Length: {length}\r\n").ok()?;
        }
        for (name, value) in &self.headers {
            write!(out, "{name}: {value}\r\n").ok()?;
        }
        write!(out, "ETag: \"{}\"\r\nConnection: close\r\n\r\n", self.etag).ok()?;
        let end = self.stops_after.map_or(whole, |stop| (from + stop).min(whole));
        out.write_all(&self.bytes[from..end]).ok()
    }
}
