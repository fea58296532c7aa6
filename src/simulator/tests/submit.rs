//! What a submit is answered with, and what is billed for it.

use secrecy::SecretString;

use super::*;

#[tokio::test]
async fn a_submit_is_answered_with_a_bare_id_and_stands_in_the_ledger() {
    let simulator = start(|_| {}).await;
    let id = accepted(&client(), &simulator, "a cat").await;
    let ledger = simulator.ledger();
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].arrival, 1);
    assert_eq!(ledger[0].upstream_id, id);
    assert_eq!(ledger[0].request_id.as_deref(), Some("a cat/1"));
    assert_eq!(ledger[0].body, body("a cat", 7));
    assert_eq!(ledger[0].first_prompt(), Some("a cat"));
    assert_eq!(ledger[0].seed(), Some(7));
    assert_eq!(ledger[0].behaviour, Behaviour::Success);
    assert!(ledger[0].answered);
}

#[tokio::test]
async fn the_token_is_checked_at_submits_and_polls() {
    let simulator = start(|options| options.token = Some(SecretString::from("right"))).await;
    let client = client();
    let send = |name: &'static str, value: &'static str| submit(&client, &simulator, "a").header(name, value).send();
    for (name, value, status) in [
        ("x-other", "right", 401),
        ("X-Token", "wrong", 401),
        ("Authorization", "right", 401),
        ("X-Token", "right", 200),
        ("Authorization", "Bearer right", 200),
    ] {
        assert_eq!(send(name, value).await.unwrap().status(), status, "{name}: {value}");
    }
    let ledger = simulator.ledger();
    assert_eq!(ledger.iter().map(|entry| entry.arrival).collect::<Vec<_>>(), [4, 5]);
    let id = &ledger[0].upstream_id;
    assert_eq!(poll(&client, &simulator, id).await.unwrap().status(), 401);
    assert_eq!(simulator.ledger()[0].polls, 0);
    assert_eq!(simulator.stats().polls_by_upstream_id[id], 1);
}

#[tokio::test]
async fn a_body_that_is_no_submit_is_refused() {
    let simulator = start(|_| {}).await;
    let url = format!("{}/v3/make_image", simulator.url());
    for body in ["", "{}", r#"{"width": 0, "height": 8, "rawPrompt": []}"#] {
        let answer = client().post(&url).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 422, "{body}");
    }
    assert!(simulator.ledger().is_empty());
    assert_eq!(simulator.stats().arrivals, 3);
}

#[tokio::test]
async fn every_status_is_answered_as_scripted_and_bills_nothing() {
    let client = client();
    let statuses = [302, 400, 401, 402, 403, 404, 408, 422, 429, 451, 500, 502, 503];
    let simulator = start(|options| {
        for (arrival, status) in (1..).zip(statuses) {
            let behaviour = Behaviour::Status { status, retry_after: matches!(status, 429 | 503).then_some(3), accepted: false };
            options.script.insert(arrival, behaviour);
        }
    })
    .await;
    for status in statuses {
        let answer = submit(&client, &simulator, "a").send().await.unwrap();
        assert_eq!(answer.status(), status);
        let wait = answer.headers().get("retry-after");
        assert_eq!(wait.map(|value| value.to_str().unwrap()), matches!(status, 429 | 503).then_some("3"));
        assert_eq!(answer.headers().contains_key("location"), status == 302);
    }
    assert!(simulator.ledger().is_empty());
    assert_eq!(simulator.stats().submit_statuses, statuses.map(|status| (status, 1)).into());
    accepted(&client, &simulator, "a").await;
    assert_eq!(simulator.ledger()[0].arrival, 14);
}

#[tokio::test]
async fn a_status_can_be_billed_all_the_same() {
    let simulator = first(Behaviour::Status { status: 500, retry_after: None, accepted: true }).await;
    let answer = submit(&client(), &simulator, "a").send().await.unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(simulator.ledger().len(), 1);
    assert_eq!(simulator.stats().in_flight, 0, "nobody can poll it");
}

/// The text of an error and of all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_reset_is_an_error_of_the_connection_and_no_answer() {
    for (behaviour, billed) in [(Behaviour::ResetBefore, 0), (Behaviour::ResetAfter, 1)] {
        let simulator = first(behaviour.clone()).await;
        let client = client();
        let error = submit(&client, &simulator, "a").send().await.unwrap_err();
        assert!(!error.is_connect() && !error.is_timeout(), "{error:?}");
        let text = chain(&error).to_lowercase();
        assert!(text.contains("reset"), "{behaviour:?}: {text}");
        assert_eq!(simulator.ledger().len(), billed, "{behaviour:?}");
        assert_eq!(simulator.stats().submit_resets, 1);
        assert_eq!(simulator.stats().unanswered, billed as u64);
        assert_eq!(simulator.stats().in_flight, 0);
        // The next POST of the same cell goes through, on a new connection.
        accepted(&client, &simulator, "a").await;
    }
}

#[tokio::test]
async fn a_hanging_submit_gets_no_answer_however_long_it_waits() {
    for (behaviour, billed) in [(Behaviour::HangBefore, 0), (Behaviour::HangAfter, 1)] {
        let simulator = first(behaviour.clone()).await;
        let client = client();
        let waiting = tokio::spawn(submit(&client, &simulator, "a").send());
        until(&simulator, |stats| stats.arrivals == 1).await;
        // Others are answered meanwhile.
        accepted(&client, &simulator, "b").await;
        assert_eq!(simulator.ledger().len(), billed + 1, "{behaviour:?}");
        assert!(!waiting.is_finished());
        simulator.stop().await;
        assert!(waiting.await.unwrap().is_err(), "{behaviour:?}");
    }
}

#[tokio::test]
async fn a_client_that_gives_up_leaves_an_unanswered_job_behind() {
    let simulator = first(Behaviour::HangAfter).await;
    let client = client();
    let waiting = tokio::spawn(submit(&client, &simulator, "a").send());
    until(&simulator, |stats| stats.accepted == 1).await;
    assert_eq!(simulator.stats().in_flight, 1);
    waiting.abort();
    until(&simulator, |stats| stats.unanswered == 1).await;
    assert_eq!(simulator.stats().in_flight, 0);
    assert!(!simulator.ledger()[0].answered);
}

#[tokio::test]
async fn an_unreadable_answer_is_billed() {
    let behaviour: Behaviour = "unreadable".parse().unwrap();
    let simulator = first(behaviour).await;
    let answer = submit(&client(), &simulator, "a").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
    assert_eq!(simulator.ledger().len(), 1);
    assert_eq!(simulator.stats().in_flight, 0, "nobody can poll it");
}

#[tokio::test]
async fn older_forms_hold_the_id_in_an_object() {
    let forms = [
        (IdForm::Uuid, "/uuid"),
        (IdForm::TaskUuid, "/task_uuid"),
        (IdForm::Id, "/id"),
        (IdForm::TaskId, "/task_id"),
        (IdForm::DataUuid, "/data/uuid"),
        (IdForm::DataTaskUuid, "/data/task_uuid"),
        (IdForm::DataId, "/data/id"),
        (IdForm::DataTaskId, "/data/task_id"),
    ];
    for (form, place) in forms {
        let simulator = first(Behaviour::ObjectId { form }).await;
        let answer = submit(&client(), &simulator, "a").send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer.pointer(place).and_then(Value::as_str), Some(simulator.ledger()[0].upstream_id.as_str()), "{form:?}");
    }
}
