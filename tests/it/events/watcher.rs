//! A client of server-sent events, as the HTML standard has it (section 9.2).

use futures_util::StreamExt as _;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{SOON, Server};

type Chunks = futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>;

pub struct Watcher {
    pub headers: HeaderMap,
    chunks: Chunks,
    rest: String,
    /// What a browser would send as `Last-Event-ID` when it comes back.
    pub last_id: String,
}

impl Watcher {
    /// Waits for the first piece, so that whatever happens from now on is told.
    pub async fn open(server: &Server, query: &str, last_id: Option<&str>) -> Self {
        let mut request = server.request(Method::GET, &format!("/api/events{query}"));
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        let mut watcher = Self {
            headers,
            chunks: response.bytes_stream().boxed(),
            rest: String::new(),
            last_id: String::new(),
        };
        while watcher.last_id.is_empty() {
            assert!(watcher.read().await, "the stream ended at once");
            watcher.greeting();
        }
        watcher
    }

    /// Whether there is room for one more.
    pub async fn fits(server: &Server) -> bool {
        server.request(Method::GET, "/api/events").send().await.unwrap().status() == 200
    }

    async fn read(&mut self) -> bool {
        match timeout(SOON, self.chunks.next()).await.expect("nothing is said any more") {
            Some(Ok(bytes)) => {
                self.rest.push_str(std::str::from_utf8(&bytes).unwrap());
                true
            }
            Some(Err(error)) => panic!("the stream broke off: {error}"),
            None => false,
        }
    }

    fn greeting(&mut self) {
        if let Some((greeting, rest)) = self.rest.split_once("\n\n") {
            assert!(greeting.starts_with("retry: "), "{greeting}");
            self.last_id = greeting.split_once("id: ").unwrap().1.to_owned();
            self.rest = rest.to_owned();
        }
    }

    /// The next event.
    pub async fn next(&mut self) -> Value {
        loop {
            while let Some((frame, rest)) = self.rest.split_once("\n\n") {
                let field = |name: &str| {
                    frame
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                let (id, kind, data) = (field("id"), field("event"), field("data"));
                self.rest = rest.to_owned();
                if let Some(id) = id {
                    self.last_id = id;
                }
                if let Some(data) = data {
                    let data: Value = serde_json::from_str(&data).unwrap();
                    assert_eq!(data["kind"], kind.unwrap());
                    return data;
                }
            }
            assert!(self.read().await, "the stream ended");
        }
    }

    /// All events up to and with this one.
    pub async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(&wanted) {
            seen.push(self.next().await);
        }
        seen
    }

    /// Whether the stream ends, as it should.
    pub async fn end(&mut self) -> bool {
        while let Some(chunk) = timeout(SOON, self.chunks.next()).await.unwrap_or(None) {
            if chunk.is_err() {
                return false;
            }
        }
        true
    }
}
