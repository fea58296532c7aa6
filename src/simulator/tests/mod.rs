//! The simulator over real HTTP on loopback.

mod control;
mod load;
mod poll;
mod submit;

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::*;

/// A wait that is longer than this has failed.
const BOUND: Duration = Duration::from_secs(20);

fn client() -> Client {
    Client::builder().retry(reqwest::retry::never()).redirect(reqwest::redirect::Policy::none()).timeout(BOUND).build().unwrap()
}

async fn start(change: impl FnOnce(&mut SimulatorOptions)) -> Simulator {
    let mut options = SimulatorOptions::default();
    change(&mut options);
    Simulator::start(options).await.unwrap()
}

/// A simulator whose first submit is scripted.
async fn first(behaviour: Behaviour) -> Simulator {
    start(|options| {
        options.script.insert(1, behaviour);
    })
    .await
}

fn body(prompt: &str, seed: i64) -> Value {
    json!({
        "storyId": "", "jobType": "universal", "width": 1368, "height": 768, "seed": seed,
        "rawPrompt": [{"type": "freetext", "value": prompt, "weight": 1.0}],
        "meta": {"entrance": "PICTURE,PURE"},
    })
}

fn submit(client: &Client, simulator: &Simulator, prompt: &str) -> reqwest::RequestBuilder {
    client
        .post(format!("{}/v3/make_image", simulator.url()))
        .header("x-imagemill-request", format!("{prompt}/1"))
        .json(&body(prompt, 7))
}

/// Submits and reads the id that a plain answer holds.
async fn accepted(client: &Client, simulator: &Simulator, prompt: &str) -> String {
    let answer = submit(client, simulator, prompt).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

async fn poll(client: &Client, simulator: &Simulator, id: &str) -> reqwest::Result<Response> {
    let url = format!("{}/v1/artifact/task/{id}", simulator.url());
    client.get(url).send().await
}

/// Polls and reads the answer.
async fn told(client: &Client, simulator: &Simulator, id: &str) -> Value {
    let answer = poll(client, simulator, id).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// Waits until the simulator's counters say so.
async fn until(simulator: &Simulator, condition: impl Fn(&Stats) -> bool) {
    let wait = async {
        while !condition(&simulator.stats()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let came = tokio::time::timeout(BOUND, wait).await;
    assert!(came.is_ok(), "it did not come to it: {:?}", simulator.stats());
}

#[tokio::test]
async fn it_says_that_it_is_a_test_double() {
    let simulator = start(|_| {}).await;
    for path in ["/", "/stats", "/no/such/path"] {
        let answer = client().get(format!("{}{path}", simulator.url())).send().await.unwrap();
        assert_eq!(answer.headers()["x-imagemill-simulator"], "test double");
    }
    let answer = client().get(simulator.url()).send().await.unwrap();
    let about: Value = answer.json().await.unwrap();
    assert_eq!(about["simulator"], "test double");
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_it() {
    let one = start(|_| {}).await;
    let port: u16 = one.url().rsplit(':').next().unwrap().parse().unwrap();
    let error = Simulator::start(SimulatorOptions { port, ..SimulatorOptions::default() }).await.unwrap_err();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn after_stop_and_after_drop_nobody_listens() {
    let client = client();
    let simulator = start(|_| {}).await;
    let url = simulator.url().to_owned();
    // Leaves an idle connection behind, which must not keep the server alive.
    accepted(&client, &simulator, "a").await;
    simulator.stop().await;
    assert!(client.get(&url).send().await.unwrap_err().is_connect());

    let simulator = start(|_| {}).await;
    let url = simulator.url().to_owned();
    drop(simulator);
    let wait = async {
        while client.get(&url).send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(BOUND, wait).await.unwrap();
}
