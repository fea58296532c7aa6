//! A server that answers as it is told and remembers what it was asked, for what the simulator does not say of itself:
//! headers, answers of other forms, other hosts.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// One request, as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// How many there were before it with this method and path.
    pub(super) before: usize,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// A status, a `Location` if one is given, and a body.
    Says(u16, Option<String>, Vec<u8>),
    /// Nothing, ever.
    Hangs,
}

impl Answer {
    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Says(200, None, body.into())
    }

    pub(super) fn json(body: &serde_json::Value) -> Self {
        Self::ok(body.to_string())
    }

    pub(super) fn status(status: u16) -> Self {
        Self::Says(status, None, Vec::new())
    }

    pub(super) fn redirect(to: String) -> Self {
        Self::Says(302, Some(to), Vec::new())
    }
}

/// See the module. Ends when it is dropped.
pub(super) struct Stub {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: JoinHandle<()>,
}

impl Stub {
    pub(super) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listen on loopback");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let counts = Arc::new(Mutex::new(HashMap::<(Method, String), usize>::new()));
        let (answer, all) = (Arc::new(answer), Arc::clone(&asked));
        let handle = async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let path = uri.to_string();
            let before = {
                let mut counts = counts.lock().expect("the counts");
                let count = counts.entry((method.clone(), path.clone())).or_default();
                *count += 1;
                *count - 1
            };
            let asked = Asked { method, path, headers, body: body.to_vec(), before };
            all.lock().expect("the requests").push(asked.clone());
            respond(answer(&asked)).await
        };
        let app = Router::new().fallback(handle);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("serve") });
        Self { url, asked, server }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the requests").clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn respond(answer: Answer) -> Response {
    match answer {
        Answer::Hangs => std::future::pending().await,
        Answer::Says(status, location, body) => {
            let mut response = (StatusCode::from_u16(status).expect("a status"), body).into_response();
            if let Some(location) = location {
                response.headers_mut().insert("location", location.parse().expect("a header"));
            }
            response
        }
    }
}

impl Asked {
    /// The value of the first prompt of a submit.
    pub(super) fn prompt(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(body["rawPrompt"][0]["value"].as_str()?.to_owned())
    }

    /// The upstream id of a poll.
    pub(super) fn polled(&self) -> Option<&str> {
        self.path.strip_prefix("/v1/artifact/task/")
    }
}
