//! `task export`: a manifest of a task's cells, and its pictures.

use std::collections::BTreeSet;

use imagemill::{
    models::{Prompt, TaskInput},
    services::task_service,
};
use serde_json::Value;
use sqlx::Executor as _;

use crate::{
    commands::{ends_with, json},
    support::World,
};

/// A drained task of 2 x 2 cells, with kept pictures, whose axes have values that no file system takes as they are.
async fn drained(world: &mut World) -> String {
    let pictures = world.directory.path().join("pictures").display().to_string();
    world.set("results.directory", pictures);
    let input = TaskInput::new("to take away")
        .prompt(Prompt::character("0123", "Mia"))
        .variable_prompt("light", ["../lanterns, \"red\"", "../lanterns, \"red\""].map(Prompt::freetext))
        .variable_prompt("light", [Prompt::freetext(""), Prompt::freetext("fog")])
        .seed(7);
    let definition = input.validate(&(&world.context.settings.limits).into()).expect("a sound input");
    let task = task_service::create_task(&world.context, &world.actor, &definition).await.expect("create the task");
    world.drain().await;
    let last = "update imagemill.subtasks set status = 'failed', error_kind = 'refused', error = 'no, \"never\"', result = null,
                       result_file = null, result_sha256 = null where cell = 3";
    world.pool().execute(last).await.expect("fail one");
    task.id.to_string()
}

#[tokio::test]
async fn the_manifest_names_each_cell_and_the_pictures_lie_under_those_names() {
    let mut world = World::new().await;
    let task = drained(&mut world).await;
    let out = world.directory.path().join("out").display().to_string();
    let (text, _) = ends_with(&world, &["--as", "tester", "task", "export", &task, "--csv", "--pictures", &out], 0).await;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> = reader.headers().expect("a header").iter().map(str::to_owned).collect();
    assert_eq!(header[3..5], ["axis 0: light", "axis 1: light"]);
    assert_eq!(header.iter().collect::<BTreeSet<_>>().len(), header.len(), "{header:?}");
    let place = |name: &str| header.iter().position(|column| column == name).unwrap_or_else(|| panic!("no column {name}"));
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows.len(), 4);
    let column = |name: &str| rows.iter().map(|row| row[place(name)].to_owned()).collect::<Vec<_>>();
    assert_eq!(column("variable_indices"), ["0;0", "0;1", "1;0", "1;1"]);
    assert_eq!(column("axis 0: light")[2], "../lanterns, \"red\"");
    assert_eq!(column("axis 1: light"), ["(without)", "fog", "(without)", "fog"]);
    assert_eq!(column("paid_submits"), ["1"; 4]);
    assert_eq!(column("error")[3], "no, \"never\"");
    let files = ["0_lanterns-red_without.png", "1_lanterns-red_fog.png", "2_lanterns-red_without.png", ""];
    assert_eq!(column("file"), files);
    // The manifest's hash is that of the file that it names, and its id is one that the upstream gave.
    for (file, sha256) in files.iter().zip(column("sha256")).filter(|(file, _)| !file.is_empty()) {
        let bytes = std::fs::read(world.directory.path().join("out").join(file)).expect("the picture");
        assert_eq!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)), sha256);
    }
    assert_eq!(std::fs::read_dir(&out).expect("the directory").count(), 3);
    let given: BTreeSet<String> = world.simulator.ledger().into_iter().map(|entry| entry.upstream_id).collect();
    assert_eq!(column("upstream_id").into_iter().collect::<BTreeSet<_>>(), given);
    let prompts: Value = serde_json::from_str(&rows[1][place("prompts")]).expect("the prompts");
    assert_eq!(prompts[2]["value"], "fog");
    assert_eq!(serde_json::from_str::<Value>(&rows[0][place("prompts")]).expect("the prompts").as_array().map(Vec::len), Some(2));

    // The same as JSON, without pictures.
    let document = json(&world, &["--as", "tester", "task", "export", &task, "--json"]).await;
    assert_eq!((document["task"]["id"].as_str(), document["axes"][1]["name"].as_str()), (Some(&*task), Some("light")));
    let cells = document["cells"].as_array().expect("the cells");
    let seeds: Vec<String> = cells.iter().map(|cell| cell["seed"].to_string()).collect();
    assert_eq!(seeds, column("seed"));
    assert_eq!(cells[3]["error_kind"], "refused");

    // Where nothing is set they are where `run` keeps them, as for the grid.
    world.environment.remove("IMAGEMILL_RESULTS__DIRECTORY");
    let again = world.directory.path().join("again").display().to_string();
    ends_with(&world, &["--as", "tester", "task", "export", &task, "--csv", "--pictures", &again], 0).await;
    assert_eq!(std::fs::read_dir(&again).expect("the directory").count(), 3);

    // What stands in the place of a picture is replaced, and no link is followed.
    let (directory, victim) = (world.directory.path().join("closed"), world.directory.path().join("victim"));
    std::fs::create_dir(&directory).expect("the directory");
    std::fs::write(&victim, "untouched").expect("a file");
    std::os::unix::fs::symlink(&victim, directory.join(files[0])).expect("a link");
    let to = directory.display().to_string();
    ends_with(&world, &["--as", "tester", "task", "export", &task, "--csv", "--pictures", &to], 0).await;
    assert_eq!(std::fs::read_dir(&directory).expect("the directory").count(), 3);
    assert_eq!(std::fs::read_to_string(&victim).expect("the file"), "untouched");

    // A picture that is gone is told, and named nowhere.
    std::fs::remove_dir_all(world.directory.path().join("pictures")).expect("the pictures are gone");
    let (_, told) = ends_with(&world, &["--as", "tester", "task", "export", &task, "--csv", "--pictures", &out], 2).await;
    assert!(told.contains("in pictures either: set it to where they were kept"), "{told}");
    world.set("results.directory", world.directory.path().join("pictures").display().to_string());
    let (text, stderr) = ends_with(&world, &["--as", "tester", "task", "export", &task, "--csv", "--pictures", &out], 1).await;
    assert!(stderr.contains("3 kept pictures") && stderr.contains("(cell 0, 1, 2)"), "{stderr}");
    assert!(!text.contains("lanterns-red_fog.png"), "{text}");
    for wrong in [&["--csv", "--json"][..], &[]] {
        let arguments: Vec<&str> = ["--as", "tester", "task", "export", &task].iter().chain(wrong).copied().collect();
        ends_with(&world, &arguments, 2).await;
    }
}

#[tokio::test]
async fn an_export_of_many_pages_has_every_cell_once_in_order() {
    let world = World::new().await;
    let task = world.create(1_200).await.id.to_string();
    let (text, _) = ends_with(&world, &["--as", "tester", "task", "export", &task, "--csv"], 0).await;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let cells: Vec<i32> = reader.records().map(|row| row.expect("a row")[0].parse().expect("a number")).collect();
    assert_eq!(cells, (0..1_200).collect::<Vec<_>>());
}
