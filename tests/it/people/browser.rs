//! A browser as far as a login needs one: it keeps cookies, goes where it is sent, and takes `__Host-` seriously.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, HeaderMap, LOCATION, SET_COOKIE};
use reqwest::{Method, redirect};
use serde_json::Value;
use url::Url;

use crate::support::Answer;

#[derive(Clone)]
pub struct Browser {
    client: reqwest::Client,
    /// By host and port, and name. (A real one knows no ports.)
    pub cookies: BTreeMap<(String, String), String>,
}

fn host(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap(), url.port_or_known_default().unwrap())
}

impl Browser {
    pub fn new() -> Self {
        let client = reqwest::Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self { client, cookies: BTreeMap::new() }
    }

    /// The value of a cookie of the host of this URL.
    pub fn cookie(&self, url: &str, name: &str) -> Option<&str> {
        let host = host(&Url::parse(url).unwrap());
        self.cookies.get(&(host, name.to_owned())).map(String::as_str)
    }

    /// One request, with the cookies of that host.
    pub async fn ask(
        &mut self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let url = Url::parse(url).unwrap();
        let mut request = self.client.request(method, url.clone());
        let own = self.cookies.iter().filter(|((of, _), _)| *of == host(&url));
        let line: Vec<_> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
        if !line.is_empty() {
            request = request.header(COOKIE, line.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = body.iter().fold(request, |request, body| request.json(body));
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        self.keep(&url, &headers);
        let text = response.text().await.unwrap();
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    fn keep(&mut self, url: &Url, headers: &HeaderMap) {
        for line in headers.get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            let mut parts = line.split("; ");
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let rest: Vec<_> = parts.collect();
            assert!(name.starts_with("__Host-") && !line.contains("Domain"), "{line}");
            for part in ["Secure", "HttpOnly", "Path=/"] {
                assert!(rest.contains(&part), "{line} is not {part}");
            }
            let strict = if name == "__Host-paperminder" { "SameSite=Strict" } else { "SameSite=" };
            assert!(rest.iter().any(|part| part.starts_with(strict)), "{line}");
            let key = (host(url), name.to_owned());
            if rest.contains(&"Max-Age=0") {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
    }

    /// Goes there, and on until nobody sends it further, or it would come to what begins with `stop`. Tells where it is.
    pub async fn go(&mut self, url: &str, stop: Option<&str>) -> (String, Answer) {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let answer = self.ask(Method::GET, &url, &[], None).await;
            let Some(to) = answer.headers.get(LOCATION) else { return (url, answer) };
            url = Url::parse(&url).unwrap().join(to.to_str().unwrap()).unwrap().to_string();
            if stop.is_some_and(|stop| url.starts_with(stop)) {
                return (url, answer);
            }
        }
        panic!("it is sent in circles: {url}");
    }
}
