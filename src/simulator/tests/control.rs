//! Control, holding, choices, and what can be read over HTTP.

use secrecy::SecretString;

use super::*;

async fn control(client: &Client, simulator: &Simulator, patch: Value) -> Response {
    let url = format!("{}/control", simulator.url());
    client.post(url).json(&patch).send().await.unwrap()
}

async fn shown<T: serde::de::DeserializeOwned>(simulator: &Simulator, path: &str) -> T {
    let url = format!("{}{path}", simulator.url());
    client().get(url).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn control_changes_what_it_names_and_shows_the_rest() {
    let simulator = start(|options| options.token = Some(SecretString::from("hush"))).await;
    let client = client();
    let patch = json!({"script": {"1": "failure"}, "submit_latency": "1-2"});
    assert_eq!(control(&client, &simulator, patch).await.status(), 200);
    let options: Value = shown(&simulator, "/control").await;
    assert_eq!(options["script"]["1"]["kind"], "failure");
    assert_eq!(options["submit_latency"], "1-2");
    assert_eq!(options["pending_polls"], 1);
    assert!(!options.to_string().contains("hush"));
    // The token is not shown, and still there.
    let answer = submit(&client, &simulator, "a").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    control(&client, &simulator, json!({"token": null})).await;
    accepted(&client, &simulator, "a").await;
}

#[tokio::test]
async fn a_wrong_control_is_refused_and_changes_nothing() {
    let simulator = start(|_| {}).await;
    let client = client();
    for patch in [
        json!({"no_such_key": 1, "hold_polls": true}),
        json!({"hold_polls": true, "rates": [{"behaviour": "failure", "probability": 2.0}]}),
        json!({"hold_polls": true, "port": 1}),
        json!({"hold_polls": true, "script": {"first": "failure"}}),
    ] {
        let answer = control(&client, &simulator, patch.clone()).await;
        assert_eq!(answer.status(), 422, "{patch}");
    }
    let options: SimulatorOptions = shown(&simulator, "/control").await;
    assert!(!options.hold_polls);
    assert!(simulator.control(|options| options.picture_side = 0).is_err());
}

#[tokio::test]
async fn held_submits_are_billed_and_answered_when_released() {
    let simulator = start(|options| options.hold_submits = true).await;
    let client = client();
    let waiting = tokio::spawn(submit(&client, &simulator, "a").send());
    until(&simulator, |stats| stats.accepted == 1).await;
    // A round trip later it is still held.
    let ledger: Vec<LedgerEntry> = shown(&simulator, "/ledger").await;
    assert!(!ledger[0].answered);
    assert!(simulator.stats().submit_statuses.is_empty());
    control(&client, &simulator, json!({"hold_submits": false})).await;
    let id: String = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(id, ledger[0].upstream_id);
    assert!(simulator.ledger()[0].answered);
}

#[tokio::test]
async fn a_client_that_dies_while_held_leaves_its_submit_in_the_ledger() {
    let simulator = start(|options| options.hold_submits = true).await;
    let client = client();
    let waiting = tokio::spawn(submit(&client, &simulator, "a").send());
    until(&simulator, |stats| stats.accepted == 1).await;
    waiting.abort();
    until(&simulator, |stats| stats.unanswered == 1).await;
    assert_eq!(simulator.ledger().len(), 1);
}

#[tokio::test]
async fn held_polls_wait_and_end_nothing() {
    let simulator = start(|options| {
        options.hold_polls = true;
        options.pending_polls = Span::fixed(0);
    })
    .await;
    let client = client();
    let id = accepted(&client, &simulator, "a").await;
    let url = format!("{}/v1/artifact/task/{id}", simulator.url());
    let waiting = tokio::spawn(client.get(url).send());
    until(&simulator, |stats| stats.polls == 1).await;
    let ledger: Vec<LedgerEntry> = shown(&simulator, "/ledger").await;
    assert_eq!((ledger[0].polls, ledger[0].task_status), (1, None));
    simulator.control(|options| options.hold_polls = false).unwrap();
    let answer: Value = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(answer["task_status"], "SUCCESS");
    assert_eq!(simulator.ledger()[0].task_status, Some(TaskStatus::Success));
}

#[tokio::test]
async fn rules_fit_by_request_id_prompt_and_seed() {
    let rule = |behaviour: u16| Rule::new(Behaviour::status(behaviour));
    let simulator = start(|options| {
        options.rules = vec![
            Rule { request_id: Some("x*/1".to_owned()), ..rule(451) },
            Rule { prompt: Some("cat".to_owned()), times: Some(1), ..rule(503) },
            Rule { prompt: Some("dog".to_owned()), seed: Some(8), ..rule(400) },
        ];
        options.script.insert(6, Behaviour::status(402));
    })
    .await;
    let client = client();
    let send = async |prompt: &str, seed: i64| {
        let request = submit(&client, &simulator, prompt).json(&body(prompt, seed));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("xylophone", 7).await, 451);
    assert_eq!(send("a cat", 7).await, 503);
    assert_eq!(send("a cat", 7).await, 200, "once was enough");
    assert_eq!(send("a dog", 7).await, 200, "another seed");
    assert_eq!(send("a dog", 8).await, 400);
    assert_eq!(send("a dog", 8).await, 402, "the script comes first");
    let options: SimulatorOptions = shown(&simulator, "/control").await;
    let used: Vec<u64> = options.rules.iter().map(|rule| rule.used).collect();
    assert_eq!(used, [1, 1, 1]);
}

#[tokio::test]
async fn rates_are_met_and_the_same_seed_chooses_the_same() {
    let choices = async |seed| {
        let simulator = start(|options| {
            options.seed = seed;
            options.rates = vec![
                Rate { behaviour: Behaviour::Timeout, probability: 0.3 },
                Rate { behaviour: Behaviour::Deleted, probability: 0.2 },
            ];
        })
        .await;
        let client = client();
        for _ in 0..300 {
            accepted(&client, &simulator, "a").await;
        }
        let ledger = simulator.ledger().into_iter();
        ledger.map(|entry| entry.behaviour).collect::<Vec<_>>()
    };
    let one = choices(1).await;
    assert_eq!(one, choices(1).await);
    assert_ne!(one, choices(2).await);
    let count = |behaviour| one.iter().filter(|other| **other == behaviour).count();
    // Expected 90, 60 and 150 of 300, each give or take five standard deviations.
    assert!((50..=130).contains(&count(Behaviour::Timeout)));
    assert!((25..=95).contains(&count(Behaviour::Deleted)));
    assert!((106..=194).contains(&count(Behaviour::Success)));
}

#[tokio::test]
async fn ledger_and_stats_read_the_same_over_http() {
    let simulator = start(|options| {
        options.script.insert(2, Behaviour::status(429));
    })
    .await;
    let client = client();
    let id = accepted(&client, &simulator, "a").await;
    submit(&client, &simulator, "b").send().await.unwrap();
    accepted(&client, &simulator, "c").await;
    for _ in 0..2 {
        told(&client, &simulator, &id).await;
    }
    let ledger: Vec<LedgerEntry> = shown(&simulator, "/ledger").await;
    assert_eq!(ledger, simulator.ledger());
    let later: Vec<LedgerEntry> = shown(&simulator, "/ledger?from=2").await;
    assert_eq!(later, ledger[1..]);
    let stats: Stats = shown(&simulator, "/stats").await;
    assert_eq!(stats, simulator.stats());
    let expected = Stats {
        arrivals: 3,
        accepted: 2,
        polls: 2,
        in_flight: 1,
        max_in_flight: 2,
        submit_statuses: [(200, 2), (429, 1)].into(),
        poll_statuses: [(200, 2)].into(),
        polls_by_upstream_id: [(id, 2)].into(),
        ..Stats::default()
    };
    assert_eq!(stats, expected);
}
