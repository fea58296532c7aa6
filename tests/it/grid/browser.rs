//! A headless Chromium, driven by the `DevTools` protocol over a pipe: nothing listens, and it ends with its pipe.

use std::{path::PathBuf, process::Stdio, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout_at},
};

use crate::support::BOUND;

/// How a Chromium is called, by distribution.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// One browser with one page.
pub(super) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
    /// What the browser told unasked, oldest first.
    pub(super) events: Vec<Value>,
    /// Its profile; gone after it.
    _profile: tempfile::TempDir,
    /// Where it puts what is downloaded.
    pub(super) downloads: PathBuf,
}

impl Browser {
    /// Starts one. None: there is none on this machine, which is said.
    pub(super) async fn start() -> Option<Self> {
        let Some(program) = NAMES.iter().find_map(|name| which::which(name).ok()) else {
            eprintln!("SKIPPED: no Chromium on this machine (Debian: apt-get install chromium)");
            return None;
        };
        let profile = tempfile::tempdir().expect("a directory");
        let downloads = profile.path().join("downloads");
        // The browser reads its third file and writes its fourth.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
            // Keys before the first picture are taken.
            .arg("--allow-pre-commit-input")
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .args(["--remote-debugging-pipe", "about:blank"])
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start the browser");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut browser =
            Self { child, input, output, session: None, calls: 0, events: Vec::new(), _profile: profile, downloads };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        let allow = json!({ "behavior": "allow", "downloadPath": browser.downloads, "eventsEnabled": true });
        browser.call("Browser.setDownloadBehavior", allow).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    /// Calls a method and waits for its answer.
    pub(super) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let deadline = Instant::now() + BOUND;
        let written = timeout_at(deadline, self.input.write_all(&bytes)).await;
        written.unwrap_or_else(|_| panic!("the browser does not take {method}")).expect("write to the browser");
        loop {
            let message = self.read(deadline, method).await;
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// The next message; others than the one that is waited for do not put the deadline off.
    async fn read(&mut self, deadline: Instant, awaited: &str) -> Value {
        let mut bytes = Vec::new();
        let read = timeout_at(deadline, self.output.read_until(0, &mut bytes)).await;
        let read = read.unwrap_or_else(|_| panic!("waited in vain for {awaited}")).expect("read from the browser");
        assert!(read > 0, "the browser ended");
        bytes.pop();
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Waits for something that the browser tells unasked, from the given place in what it has told.
    pub(super) async fn event(&mut self, from: usize, method: &str) -> Value {
        let mut at = from;
        let deadline = Instant::now() + BOUND;
        loop {
            while at < self.events.len() {
                if self.events[at]["method"] == method {
                    return self.events[at]["params"].clone();
                }
                at += 1;
            }
            let message = self.read(deadline, method).await;
            self.events.push(message);
        }
    }

    /// A window of this size and theme.
    pub(super) async fn show_as(&mut self, width: u32, height: u32, theme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Opens a page and waits until it is loaded.
    pub(super) async fn open(&mut self, page: &std::path::Path) {
        let from = self.events.len();
        let url = url::Url::from_file_path(page).expect("an absolute path");
        let opened = self.call("Page.navigate", json!({ "url": url.as_str() })).await;
        assert!(opened["errorText"].is_null(), "{opened}");
        self.until_painted(from).await;
    }

    /// Loads the page again, as a person does.
    pub(super) async fn reload(&mut self) {
        let from = self.events.len();
        self.call("Page.reload", json!({})).await;
        self.until_painted(from).await;
    }

    async fn until_painted(&mut self, from: usize) {
        self.event(from, "Page.loadEventFired").await;
        // Until something is painted the browser lets go of every key that is pressed.
        self.until("performance.getEntriesByName('first-contentful-paint').length === 1").await;
        self.evaluate("new Promise(shown => requestAnimationFrame(() => requestAnimationFrame(() => shown(0))))").await;
    }

    /// What an expression is; promises are awaited.
    pub(super) async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", parameters).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(super) async fn until(&mut self, expression: &str) {
        let began = std::time::Instant::now();
        while self.evaluate(expression).await != json!(true) {
            assert!(began.elapsed() < BOUND, "waited in vain for: {expression}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A key as somebody at the keyboard presses it, until the page has it: a busy browser lets go of keys, as a person sees it do.
    pub(super) async fn press(&mut self, key: &str) {
        let mut down = json!({ "type": "keyDown", "key": key });
        if key.chars().count() == 1 {
            down["text"] = json!(key);
        }
        // What the browser itself does at a key goes by its number.
        if key == "Escape" {
            down["windowsVirtualKeyCode"] = json!(27);
        }
        let listen = "window.keysSeen ??= (addEventListener('keydown', () => { window.keysSeen += 1; }, true), 0)";
        let seen = self.evaluate(listen).await;
        let began = std::time::Instant::now();
        loop {
            self.call("Input.dispatchKeyEvent", down.clone()).await;
            self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key })).await;
            if self.evaluate("window.keysSeen").await != seen {
                return;
            }
            assert!(began.elapsed() < BOUND, "the page takes no key");
        }
    }

    /// Records the browser's own trace while something is done.
    pub(super) async fn trace(&mut self, expression: &str) -> Vec<Value> {
        self.start_trace().await;
        self.evaluate(expression).await;
        self.end_trace().await
    }

    /// Begins to record the browser's own trace.
    pub(super) async fn start_trace(&mut self) {
        let categories = "devtools.timeline,blink.user_timing,loading";
        self.call("Tracing.start", json!({ "categories": categories, "transferMode": "ReportEvents" })).await;
    }

    /// The events of the trace.
    pub(super) async fn end_trace(&mut self) -> Vec<Value> {
        let from = self.events.len();
        self.call("Tracing.end", json!({})).await;
        self.event(from, "Tracing.tracingComplete").await;
        let told = self.events.iter().filter(|event| event["method"] == "Tracing.dataCollected");
        let parts = told.filter_map(|event| event["params"]["value"].as_array());
        let trace = parts.flatten().cloned().collect();
        self.events.retain(|event| event["method"] != "Tracing.dataCollected");
        trace
    }

    /// A picture of what is seen, for those who want to look: `IMAGEMILL_GRID_SHOTS` names a directory.
    pub(super) async fn shoot(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("IMAGEMILL_GRID_SHOTS").map(PathBuf::from) else { return };
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let picture = BASE64_STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        std::fs::create_dir_all(&directory).expect("the directory of the pictures");
        std::fs::write(directory.join(format!("{name}.png")), picture).expect("write the picture");
    }

    /// What the page complained of: exceptions, and what its policy kept it from.
    pub(super) fn complaints(&self) -> Vec<String> {
        let told = self.events.iter().filter(|event| {
            event["method"] == "Runtime.exceptionThrown"
                || (event["method"] == "Log.entryAdded" && event["params"]["entry"]["level"] == "error")
        });
        told.map(|event| event["params"].to_string()).collect()
    }

    /// Where requests went to, without the page itself.
    pub(super) fn requests(&self) -> Vec<String> {
        let told = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        told.filter_map(|event| event["params"]["request"]["url"].as_str()).map(str::to_owned).collect()
    }

    /// Ends it.
    pub(super) async fn close(mut self) {
        self.session = None;
        self.call("Browser.close", json!({})).await;
        tokio::time::timeout(BOUND, self.child.wait()).await.expect("the browser ends").expect("wait for the browser");
    }
}
