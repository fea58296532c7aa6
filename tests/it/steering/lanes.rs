//! `imagemill lane limit` and `lane pause`: what can be set, and how what cannot is refused.

use serde_json::{Value, json};

use crate::{
    commands::{ends_with, json},
    support::{World, eventually},
};

async fn world() -> World {
    let mut world = World::new().await;
    world.environment.insert("IMAGEMILL_USER".to_owned(), "tester".to_owned());
    world
}

/// The lane `prod` as the command that sets this leaves it.
async fn set(world: &World, limits: &[&str]) -> Value {
    let lanes = json(world, &[&["lane", "limit", "prod", "--json"], limits].concat()).await;
    lanes.as_array().and_then(|lanes| lanes.iter().find(|lane| lane["lane"] == "prod")).expect("prod").clone()
}

#[tokio::test]
async fn a_ramp_a_rate_and_times_are_set_and_shown() {
    let world = world().await;
    let ramp = ["--ramp-start", "5", "--ramp-step", "3", "--ramp-interval", "30s", "--ramp-idle-reset", "10min"];
    let prod = set(&world, &ramp).await;
    assert_eq!(
        (&prod["ramp_start"], &prod["ramp_step"], &prod["ramp_interval"], &prod["ramp_idle_reset"]),
        (&json!(5), &json!(3), &json!(30.0), &json!(600.0))
    );
    let rates = ["--current-rate", "1.5", "--rate-adapts", "false", "--rate-floor", "0.5", "--max-job-time", "7min"];
    let prod = set(&world, &rates).await;
    assert_eq!(
        (&prod["current_rate"], &prod["rate_adapts"], &prod["rate_floor"], &prod["max_job_time"], &prod["ramp_step"]),
        (&json!(1.5), &json!(false), &json!(0.5), &json!(420.0), &json!(3))
    );
    let (listed, _) = ends_with(&world, &["lane", "list"], 0).await;
    for shown in ["now 1.5", "5 + 3 every 30s, anew when idle for 10min", "7min"] {
        assert!(listed.contains(shown), "{shown}: {listed}");
    }
    // A part of a ramp that stands; and none of it.
    let prod = set(&world, &["--ramp-step", "4", "--ramp-idle-reset", "none", "--current-rate", "none"]).await;
    assert_eq!((&prod["ramp_step"], &prod["ramp_idle_reset"], &prod["current_rate"]), (&json!(4), &Value::Null, &Value::Null));
    let prod = set(&world, &["--ramp-start", "none"]).await;
    assert_eq!((&prod["ramp_start"], &prod["ramp_step"], &prod["ramp_interval"]), (&Value::Null, &Value::Null, &Value::Null));
    for (wrong, says) in [
        (&["--ramp-start", "2"][..], "prod has no ramp: name its ramp_start, ramp_step and ramp_interval together"),
        (&["--ramp-start", "none", "--ramp-step", "2"], "a ramp that is taken away has neither a step nor an interval"),
        (&["--rate-floor", "NaN", "--ramp-interval", "0"], "rate_floor is between 0.0001 and 1000000; ramp_interval is between"),
        (&["--max-in-flight", "none"], "this one cannot be taken away: write a number"),
        (&["--burst", "none"], "this one cannot be taken away: write a number"),
        (&["--max-job-time", "soon"], "write a number of seconds, or"),
    ] {
        let (_, stderr) = ends_with(&world, &[&["lane", "limit", "prod"], wrong].concat(), 2).await;
        assert!(stderr.contains(says) && stderr.lines().count() == 1, "{wrong:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_pause_has_an_end_that_is_to_come_and_goes_with_it() {
    let mut world = world().await;
    let pause = |end: &'static str| ["lane", "pause", "prod", "--why", "a look", "--until", end, "--json"];
    let paused = json(&world, &pause("2h")).await;
    assert!(paused["until"].is_string(), "{paused}");
    let in_two_hours = "select count(*) from imagemill.pauses
                        where until between now() + interval '1 hour 59 minutes' and now() + interval '2 hours'";
    assert_eq!(world.number(in_two_hours).await, 1);
    for (wrong, says) in [
        (&["--why", "a look", "--until", "2020-01-01T00:00:00Z"][..], "2020-01-01T00:00:00Z is over"),
        (&["--why", "a look", "--until", "soon"], "write a time, as 2026-12-24T18:00:00Z, or a duration from now, as 2h"),
        (&["--why", "one\ntwo"], "in one line"),
    ] {
        let (_, stderr) = ends_with(&world, &[&["lane", "pause", "prod"], wrong].concat(), 2).await;
        assert!(stderr.contains(says) && stderr.lines().count() == 1, "{wrong:?}: {stderr}");
    }
    let (_, stderr) = ends_with(&world, &["lane", "resume", "moon"], 1).await;
    assert_eq!(stderr, "imagemill: there is no lane moon; `imagemill lane list` names them\n");
    // What is over is taken away by a worker, and that is in the audit.
    let over = "update imagemill.pauses set until = now() - interval '1 second'";
    sqlx::query(over).execute(world.pool()).await.expect("let two hours pass");
    world.set("upstream.probe_interval", "500ms");
    let worker = world.worker(&[]);
    world.until("select not exists (select from imagemill.pauses)").await;
    let ended = "select count(*) from imagemill.audit
                 where what = 'resume_lane' and who = 'system' and old_value ->> 'ended_by' = 'its end'";
    eventually("its end in the audit", || async { world.number(ended).await == 1 }).await;
    assert_eq!(world.number("select count(*) from imagemill.audit where what = 'resume_lane'").await, 1, "and nobody else's");
    drop(worker);
}
