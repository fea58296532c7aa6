//! What polls are told, and the pictures.

use super::*;

/// The states that the first so many polls of a job with this behaviour are told.
async fn states(behaviour: Behaviour, polls: usize) -> (Vec<String>, Value) {
    let simulator = first(behaviour).await;
    let client = client();
    let id = accepted(&client, &simulator, "a").await;
    let mut states = Vec::new();
    let mut last = Value::Null;
    for _ in 0..polls {
        last = told(&client, &simulator, &id).await;
        assert_eq!(last["task_uuid"], id);
        states.push(last["task_status"].as_str().unwrap().to_owned());
    }
    (states, last)
}

#[tokio::test]
async fn every_terminal_state_comes_after_pending_with_its_reason() {
    for (behaviour, state) in [
        ("success", "SUCCESS"),
        ("failure", "FAILURE"),
        ("timeout", "TIMEOUT"),
        ("illegal_image", "ILLEGAL_IMAGE"),
        ("deleted", "DELETED"),
        ("empty_success", "SUCCESS"),
    ] {
        let (states, last) = states(behaviour.parse().unwrap(), 3).await;
        assert_eq!(states, ["PENDING", state, state]);
        let pictures = last["artifacts"].as_array().unwrap().len();
        assert_eq!(pictures, usize::from(behaviour == "success"), "{behaviour}");
        assert_eq!(last["err_msg"].as_str(), (behaviour == "failure").then_some("simulated failure"));
    }
}

#[tokio::test]
async fn moderation_comes_before_pending() {
    let (states, _) = states(Behaviour::ModerationFirst { polls: 2 }, 4).await;
    assert_eq!(states, ["MODERATION", "MODERATION", "PENDING", "SUCCESS"]);
}

#[tokio::test]
async fn an_empty_success_can_be_followed_by_the_picture() {
    let simulator = first(Behaviour::EmptySuccess { polls: Some(2) }).await;
    simulator.control(|options| options.pending_polls = Span::fixed(0)).unwrap();
    let client = client();
    let id = accepted(&client, &simulator, "a").await;
    for pictures in [0, 0, 1, 1] {
        let answer = told(&client, &simulator, &id).await;
        assert_eq!(answer["task_status"], "SUCCESS");
        assert_eq!(answer["artifacts"].as_array().unwrap().len(), pictures);
    }
}

#[tokio::test]
async fn a_job_stays_pending_for_ever_until_it_is_told_otherwise() {
    let simulator = first(Behaviour::PendingForever).await;
    let client = client();
    let id = accepted(&client, &simulator, "a").await;
    for _ in 0..5 {
        assert_eq!(told(&client, &simulator, &id).await["task_status"], "PENDING");
    }
    assert_eq!(simulator.stats().in_flight, 1);
    let change = client.put(format!("{}/jobs/{id}/behaviour", simulator.url())).json("success");
    assert_eq!(change.send().await.unwrap().status(), 204);
    for state in ["PENDING", "SUCCESS"] {
        assert_eq!(told(&client, &simulator, &id).await["task_status"], state);
    }
    assert_eq!(simulator.stats().in_flight, 0);
    assert!(matches!(simulator.set_behaviour("none", Behaviour::Success), Err(SimulatorError::NoSuchJob(_))));
}

#[tokio::test]
async fn a_job_does_not_end_before_its_time() {
    let simulator = start(|options| {
        options.pending_polls = Span::fixed(0);
        options.duration = Span::fixed(3_600_000);
    })
    .await;
    let client = client();
    let long = accepted(&client, &simulator, "a").await;
    simulator.control(|options| options.duration = Span::range(1, 2)).unwrap();
    let short = accepted(&client, &simulator, "b").await;
    let end = async {
        while told(&client, &simulator, &short).await["task_status"] != "SUCCESS" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(BOUND, end).await.unwrap();
    assert_eq!(told(&client, &simulator, &long).await["task_status"], "PENDING");
}

#[tokio::test]
async fn a_lost_job_and_an_unknown_one_are_not_found() {
    let simulator = first(Behaviour::Lost).await;
    let client = client();
    let id = accepted(&client, &simulator, "a").await;
    for id in [&id, "6cfd9a5c-0000-7000-8000-000000000000"] {
        assert_eq!(poll(&client, &simulator, id).await.unwrap().status(), 404);
    }
    assert_eq!(simulator.stats().poll_statuses, [(404, 2)].into());
    assert_eq!(simulator.stats().in_flight, 0);
    assert_eq!(simulator.stats().accepted, 1);
}

#[tokio::test]
async fn polls_fail_as_often_as_told_and_then_go_on() {
    for status in [401, 402, 403, 429, 500] {
        let simulator = first(Behaviour::PollError { polls: 2, status, retry_after: Some(4) }).await;
        let client = client();
        let id = accepted(&client, &simulator, "a").await;
        for _ in 0..2 {
            let answer = poll(&client, &simulator, &id).await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()["retry-after"], "4");
        }
        for state in ["PENDING", "SUCCESS"] {
            assert_eq!(told(&client, &simulator, &id).await["task_status"], state);
        }
        assert_eq!(simulator.ledger()[0].polls, 4);
    }
}

#[tokio::test]
async fn polls_can_be_reset() {
    let simulator = first(Behaviour::PollReset { polls: 1 }).await;
    let client = client();
    let id = accepted(&client, &simulator, "a").await;
    assert!(poll(&client, &simulator, &id).await.is_err());
    assert_eq!(simulator.stats().poll_resets, 1);
    assert_eq!(told(&client, &simulator, &id).await["task_status"], "PENDING");
}

async fn picture(client: &Client, simulator: &Simulator, prompt: &str) -> Vec<u8> {
    let id = accepted(client, simulator, prompt).await;
    let early = format!("{}/picture/{id}.png", simulator.url());
    assert_eq!(client.get(&early).send().await.unwrap().status(), 404);
    told(client, simulator, &id).await;
    let answer = told(client, simulator, &id).await;
    let artifact = &answer["artifacts"][0];
    assert_eq!(artifact["modality"], "PICTURE");
    assert_eq!(artifact["image_detail"]["width"], 1368);
    let url = artifact["url"].as_str().unwrap();
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/png");
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn pictures_are_small_keep_the_ratio_and_differ_between_cells() {
    let simulator = start(|_| {}).await;
    let client = client();
    let one = picture(&client, &simulator, "a cat").await;
    let other = picture(&client, &simulator, "a dog").await;
    let again = picture(&client, &simulator, "a cat").await;
    assert_eq!(one, again);
    let decode = |png: &[u8]| image::load_from_memory(png).unwrap().to_rgb8();
    let (one, other) = (decode(&one), decode(&other));
    assert_eq!(one.dimensions(), (128, 72));
    // The ground, inside the frame and beside the text.
    assert_ne!(one.get_pixel(122, 66), other.get_pixel(122, 66));
    let black = one.pixels().filter(|pixel| pixel.0 == [0, 0, 0]).count();
    assert!(black > 50, "there is no text on it: {black} pixels");
}

#[tokio::test]
async fn pictures_can_be_refused() {
    let simulator = start(|options| options.pending_polls = Span::fixed(0)).await;
    let client = client();
    let id = accepted(&client, &simulator, "a").await;
    told(&client, &simulator, &id).await;
    let url = format!("{}/picture/{id}.png", simulator.url());
    for (status, answer) in [(Some(503), 503), (None, 200)] {
        simulator.control(|options| options.picture_status = status).unwrap();
        assert_eq!(client.get(&url).send().await.unwrap().status(), answer);
    }
}
