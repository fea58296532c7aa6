//! The command line: exit codes, JSON, and what a faulty task file is told.

use std::{path::PathBuf, process::Output, time::Duration};

use serde_json::Value;

use crate::support::{BOUND, World};

/// Runs a command of this world to its end.
pub(crate) async fn output(command: std::process::Command) -> Output {
    output_within(2 * BOUND, command).await
}

/// The same of what takes longer.
pub(crate) async fn output_within(bound: Duration, command: std::process::Command) -> Output {
    let named = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let ended = tokio::time::timeout(bound, command.kill_on_drop(true).output()).await;
    ended.unwrap_or_else(|_| panic!("not over after {bound:?}: {named}")).expect("run the command")
}

/// One of the project's task files.
pub(crate) fn example(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).display().to_string()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it and sees that it ends with this code, and that an error is one line.
pub(crate) async fn ends_with(world: &World, arguments: &[&str], code: i32) -> (String, String) {
    let output = output(world.command(arguments)).await;
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}\n{stderr}");
    // clap's own answers to wrong usage have several lines.
    if code != 0 && stderr.starts_with("imagemill: ") {
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
    (stdout, stderr)
}

pub(crate) async fn json(world: &World, arguments: &[&str]) -> Value {
    let (stdout, _) = ends_with(world, arguments, 0).await;
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_a_quiet_end() {
    let world = World::new().await;
    let task = world.create(1_000).await.id.to_string();
    for arguments in [
        &["task", "show", &task][..],
        &["--json", "task", "show", &task],
        &["task", "export", &task, "--csv"],
        &["--json", "task", "export", &task],
    ] {
        let mut all = vec!["--as", "tester"];
        all.extend(arguments);
        let mut command = world.command(&all);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("start it");
        // As `| head -c 0`: the reading end is closed before anything is written.
        drop(child.stdout.take());
        let ended = tokio::time::timeout(2 * BOUND, child.wait_with_output()).await;
        let output = ended.expect("it ends").expect("its end");
        assert_eq!((output.status.code(), said(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[tokio::test]
async fn of_many_cells_the_first_are_shown_each_with_where_it_stands() {
    let world = World::new().await;
    let task = world.create(250).await.id.to_string();
    let show = async |more: &[&str]| {
        let mut arguments = vec!["--as", "tester", "task", "show", &task];
        arguments.extend(more);
        ends_with(&world, &arguments, 0).await
    };
    let cells = |text: &str| text.lines().filter(|line| line.contains("first=first ")).count();
    let (text, told) = show(&[]).await;
    assert_eq!(cells(&text), 200);
    assert!(text.contains("first=first 1, second=second 2"), "{text}");
    assert!(told.contains("the first 200 of 250 cells; --all shows every one"), "{told}");
    let (text, told) = show(&["--all"]).await;
    assert_eq!((cells(&text), told.as_str()), (250, ""));
}

#[tokio::test]
async fn wrong_usage_wrong_input_and_wrong_settings_end_with_2() {
    let mut world = World::new().await;
    let missing = "018f0000-0000-7000-8000-000000000000";
    let broken = world.directory.path().join("broken.json");
    std::fs::write(&broken, "{\"name\": ").unwrap();
    let broken = broken.display().to_string();
    for arguments in [
        vec!["no-such-command"],
        vec!["task", "show", "not-a-uuid"],
        vec!["worker", "--lanes", "moon"],
        vec!["run"],
        vec!["run", "no-such-file.json"],
        vec!["task", "create", "no-such-file.json"],
        vec!["task", "create", &broken],
        vec!["task", "create", "--dry-run", &example("faulty.json")],
        vec!["--env", "staging", "config"],
        // Nobody says who acts, and it is not the private PostgreSQL.
        vec!["task", "list"],
    ] {
        let (stdout, stderr) = ends_with(&world, &arguments, 2).await;
        assert!(stdout.is_empty() && !stderr.is_empty(), "{arguments:?}: {stdout}{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
    let (_, stderr) = ends_with(&world, &["--as", "tester", "task", "show", missing], 1).await;
    let way_out = "`imagemill task list --all` shows those that there are";
    assert_eq!(stderr, format!("imagemill: there is no task {missing}; {way_out}\n"));
    ends_with(&world, &["--as", "nobody", "task", "list"], 1).await;

    world.set("queue.lease", "a while");
    let (_, stderr) = ends_with(&world, &["config"], 2).await;
    assert!(stderr.contains("queue.lease") && stderr.contains("IMAGEMILL_QUEUE__LEASE"), "{stderr}");
}

#[tokio::test]
async fn a_worker_says_at_its_start_what_it_lacks() {
    let mut world = World::new().await;
    world.set("lanes.dev.base_url", "");
    let (_, stderr) = ends_with(&world, &["worker", "--until-empty", "--lanes", "dev"], 2).await;
    assert!(stderr.contains("lanes.dev.base_url"), "{stderr}");
    // Nobody named the lane: the others are served all the same.
    let (_, stderr) = ends_with(&world, &["worker", "--until-empty"], 0).await;
    assert_eq!(stderr.lines().filter(|line| line.contains("lanes.dev.base_url")).count(), 1, "{stderr}");
    world.set("upstream.api_token", "");
    let (_, stderr) = ends_with(&world, &["worker", "--until-empty"], 2).await;
    assert!(stderr.contains("TEST_MAKE_API_TOKEN"), "{stderr}");
}

#[tokio::test]
async fn a_faulty_file_is_told_its_eleven_faults_and_leaves_nothing() {
    let world = World::new().await;
    for arguments in [["task", "create", "FILE"], ["run", "--yes", "FILE"]] {
        let file = example("faulty.json");
        let arguments: Vec<&str> =
            ["--as", "tester"].into_iter().chain(arguments).map(|word| if word == "FILE" { &*file } else { word }).collect();
        let (stdout, stderr) = ends_with(&world, &arguments, 2).await;
        assert!(stdout.is_empty(), "{stdout}");
        assert!(stderr.contains("has 11 faults: "), "{stderr}");
        let paths: Vec<&str> = [
            "name",
            "prompts[0].type",
            "prompts[1].value",
            "prompts[2].name",
            "prompts[3].variable_values",
            "prompts[4].weight",
            "prompts[5].variable_values",
            "ratio.variable_values[0]",
            "seed.value",
            "is_lumina.value",
            "colour",
        ]
        .into_iter()
        .filter(|path| !stderr.contains(&format!("{path}: ")))
        .collect();
        assert!(paths.is_empty(), "not named: {paths:?} in {stderr}");
    }
    for table in ["imagemill.tasks", "imagemill.subtasks", "apalis.jobs"] {
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(world.pool())
            .await
            .unwrap();
        assert_eq!(count, 0, "{table}");
    }
}

#[tokio::test]
async fn a_task_is_created_looked_at_and_waited_for() {
    let world = World::new().await;
    let file = example("front-end-form.json");
    let act = ["--as", "tester", "--json"];
    let with = |arguments: &[&'static str]| -> Vec<&str> { act.iter().chain(arguments).copied().collect() };

    let plan = json(&world, &["--json", "task", "create", "--dry-run", &file]).await;
    assert_eq!(plan["total_images"], 12);
    assert_eq!(plan["axes"].as_array().map(Vec::len), Some(3));
    assert_eq!(world.number("select count(*) from imagemill.tasks").await, 0, "a plan stores nothing");

    // From standard input; plain, it prints the id and nothing else.
    let mut create = world.command(&["--as", "tester", "task", "create", "-"]);
    create.stdin(std::fs::File::open(&file).unwrap());
    let created = output(create).await;
    assert!(created.status.success(), "{}", said(&created.stderr));
    let id = said(&created.stdout).trim().to_owned();
    uuid::Uuid::parse_str(&id).expect("an id");

    let task = |words: &[&'static str]| -> Vec<String> {
        with(words).iter().map(|word| if *word == "ID" { id.clone() } else { (*word).to_owned() }).collect()
    };
    let run = async |words: Vec<String>, code| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (stdout, _) = ends_with(&world, &words, code).await;
        serde_json::from_str::<Value>(&stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {stdout}"))
    };
    let waited = run(task(&["task", "wait", "ID", "--timeout", "10ms"]), 4).await;
    assert_eq!(waited["status"], "pending");

    world.drain().await;
    assert_eq!(run(task(&["task", "wait", "ID"]), 0).await["status"], "completed");
    assert_eq!(run(task(&["task", "watch", "ID"]), 0).await["completed_subtasks"], 12);
    let shown = run(task(&["task", "show", "ID"]), 0).await;
    assert_eq!(shown["task"]["id"], id.as_str());
    assert_eq!(shown["cells"].as_array().map(Vec::len), Some(12));
    let listed = run(task(&["task", "list"]), 0).await;
    assert_eq!(listed[0]["id"], id.as_str());
    let (table, _) = ends_with(&world, &["--as", "tester", "task", "show", &id], 0).await;
    assert!(table.contains("12 of 12 cells (100%)"), "{table}");

    world
        .simulator
        .control(|options| options.rules = vec![imagemill::simulator::Rule::new(imagemill::simulator::Behaviour::IllegalImage)])
        .unwrap();
    let failing = world.create(2).await;
    world.drain().await;
    ends_with(&world, &["--as", "tester", "task", "wait", &failing.id.to_string()], 3).await;
}

#[tokio::test]
async fn everything_that_prints_data_can_print_json() {
    let world = World::new().await;
    assert_eq!(json(&world, &["--json", "init-db"]).await["private"], false);
    let users = json(&world, &["--json", "init-users"]).await;
    assert_eq!(users.as_array().map(Vec::len), Some(6));
    let again = json(&world, &["init-users", "--json"]).await;
    assert!(again.as_array().unwrap().iter().all(|user| user["created"] == false), "{again}");
    assert_eq!(json(&world, &["--json", "config"]).await["profile"], "dev");
    assert_eq!(json(&world, &["--as", "admin", "--json", "user", "list"]).await.as_array().map(Vec::len), Some(7));
    let mut create = world.command(&["--as", "admin", "--json", "user", "create", "painter", "--role", "user"]);
    create.env("IMAGEMILL_PASSWORD", "a long enough password");
    let created = output(create).await;
    assert!(created.status.success(), "{}", said(&created.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&created.stdout).unwrap()["username"], "painter");
    assert_eq!(json(&world, &["--as", "painter", "--json", "task", "list"]).await, serde_json::json!([]));

    // One that runs until it is told to end.
    for arguments in [["simulate", "--json"], ["--json", "simulate"]] {
        let log = world.directory.path().join("simulate.log");
        let mut simulator = crate::support::Process::start(world.command(&arguments), log);
        crate::support::eventually("the simulator's address", async || simulator.log().ends_with('\n')).await;
        let said: Value = serde_json::from_str(&simulator.log()).unwrap();
        assert!(said["url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{said}");
        simulator.signal(rustix::process::Signal::TERM);
        assert!(simulator.wait().await.success());
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_ends_with_1() {
    let world = World::new().await;
    let mut command = world.command(&["--as", "tester", "task", "list"]);
    command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none").env("IMAGEMILL_DATABASE__CONNECT_TIMEOUT", "1s");
    let output = tokio::time::timeout(Duration::from_mins(1), output(command)).await.expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let stderr = said(&output.stderr);
    assert!(stderr.contains("127.0.0.1") && stderr.contains("DATABASE_URL"), "{stderr}");
}
