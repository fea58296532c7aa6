//! What the README says and code can check.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use figment::{
    Figment,
    providers::{Format as _, Toml},
};
use imagemill::models::{
    payload::{CompleteTask, GenerateImage},
    status::Status,
};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text below a heading, up to the next one of its level or above.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let level = heading.chars().take_while(|character| *character == '#').count();
    let (_, below) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("the README has no {heading:?}"));
    let mut offset = 0;
    for line in below.split_inclusive('\n') {
        let hashes = line.chars().take_while(|character| *character == '#').count();
        if (1..=level).contains(&hashes) && line[hashes..].starts_with(' ') {
            return &below[..offset];
        }
        offset += line.len();
    }
    below
}

/// What stands in backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What stands in backticks in the first column of a section's tables.
fn first_column(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap_or_default().to_owned()).collect()
}

/// The fenced blocks in a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    text.split(opening.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

fn toml(path: &str) -> serde_json::Value {
    Figment::from(Toml::string(&read(path))).extract().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn keys(value: &serde_json::Value) -> impl Iterator<Item = &String> {
    value.as_object().into_iter().flat_map(serde_json::Map::keys)
}

#[test]
fn the_job_table_names_every_queue() {
    let expected = [GenerateImage::QUEUE, CompleteTask::QUEUE].map(str::to_owned).into();
    assert_eq!(first_column(section(&read("README.md"), "## Jobs")), expected);
}

/// The commands that `imagemill ARGUMENTS --help` lists, down to those that have none below them.
fn commands(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_imagemill")).args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    let Some((_, listed)) = help.split_once("Commands:\n") else { return BTreeSet::from([arguments.join(" ")]) };
    let lines = listed.lines().take_while(|line| line.starts_with("  "));
    // Further lines of a description stand deeper.
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").flat_map(|name| commands(&[arguments, &[name]].concat())).collect()
}

#[test]
fn the_command_table_is_the_help() {
    let table = first_column(section(&read("README.md"), "## Commands"));
    // Without the arguments, which are in capitals.
    let without = |row: String| {
        let words = row.split(' ').skip(1).filter(|word| word.chars().any(char::is_lowercase));
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(table.into_iter().map(without).collect::<BTreeSet<_>>(), commands(&[]));
}

#[test]
fn the_dependency_table_is_that_of_cargo_toml() {
    let manifest = toml("Cargo.toml");
    // The package itself is there for the tests, with a feature.
    let direct =
        ["dependencies", "dev-dependencies"].iter().flat_map(|table| keys(&manifest[*table])).filter(|name| *name != "imagemill");
    assert_eq!(first_column(section(&read("README.md"), "## Dependencies")), direct.cloned().collect());
}

#[test]
fn the_sections_of_the_settings_are_those_of_config_toml() {
    let mut expected = BTreeSet::new();
    let config = toml("Config.toml");
    for name in keys(&config["default"]) {
        if name == "lanes" {
            expected.extend(keys(&config["default"]["lanes"]).map(|lane| format!("[lanes.{lane}]")));
        } else {
            expected.insert(format!("[{name}]"));
        }
    }
    assert_eq!(first_column(section(&read("README.md"), "## Settings")), expected);
}

#[test]
fn every_setting_that_it_names_is_one() {
    let defaults = &toml("Config.toml")["default"];
    let readme = read("README.md");
    let mut found = 0;
    for span in spans(&readme.replace("```", "")) {
        let parts: Vec<&str> = span.split('.').collect();
        if parts.len() < 2 || parts.iter().any(|part| part.contains(|other: char| !other.is_ascii_lowercase() && other != '_')) {
            continue;
        }
        // `imagemill.jobs` is a view, `attempts.state` a column: only what begins with a section is a setting.
        if defaults.get(parts[0]).is_some() {
            found += 1;
            let setting = parts.iter().try_fold(defaults, |value, part| value.get(part));
            assert!(setting.is_some(), "there is no setting {span}");
        }
    }
    assert!(found > 5, "only {found} settings were looked at");
}

#[test]
fn every_path_that_it_names_is_there() {
    let readme = read("README.md");
    let roots = ["src/", "jobs/", "tests/", "migrations/", "examples/", ".ci/", "LICENSE"];
    let mut found = 0;
    for span in spans(&readme.replace("```", "")) {
        if roots.iter().any(|root| span.starts_with(root)) {
            found += 1;
            assert!(Path::new(ROOT).join(span).exists(), "there is no {span}");
        }
    }
    for target in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(Path::new(ROOT).join(target).exists(), "there is no {target}");
    }
    assert!(found > 20, "only {found} paths were looked at");
    // Below a directory that was named, a file goes by its name alone.
    let files = spans(section(&readme, "## Code tour")).filter(|span| !span.contains('/'));
    for file in files.filter(|span| Path::new(span).extension().is_some_and(|extension| extension == "rs")) {
        let places = ["src/models", "src/queue"].map(|directory| Path::new(ROOT).join(directory).join(file));
        assert!(places.iter().any(|path| path.exists()), "there is no {file}");
    }
}

/// The edges of a diagram, without that from its beginning.
fn edges(diagram: &str) -> BTreeSet<(String, String)> {
    let edges = diagram.lines().filter_map(|line| line.trim().split_once(" --> "));
    let edges = edges.filter(|(from, _)| *from != "[*]");
    edges.map(|(from, to)| (from.to_owned(), to.split(':').next().unwrap_or_default().to_owned())).collect()
}

#[tokio::test]
async fn the_state_diagrams_are_the_states() {
    let readme = read("README.md");
    let [cell, task, attempt] = blocks(section(&readme, "## States"), "mermaid")[..] else { panic!("not three diagrams") };
    let allowed = |may_become: fn(Status, Status) -> bool| {
        let pairs = Status::ALL.iter().flat_map(|from| Status::ALL.iter().map(move |to| (*from, *to)));
        let pairs = pairs.filter(|(from, to)| may_become(*from, *to));
        pairs.map(|(from, to)| (from.to_string(), to.to_string())).collect::<BTreeSet<_>>()
    };
    assert_eq!(edges(cell), allowed(Status::cell_may_become));
    assert_eq!(edges(task), allowed(Status::task_may_become));

    let database = support::database().await;
    let constraint: String =
        sqlx::query_scalar("select pg_get_constraintdef(oid) from pg_constraint where conname = 'attempts_state_known'")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    let known: BTreeSet<&str> = constraint.split('\'').skip(1).step_by(2).collect();
    let drawn = edges(attempt);
    let drawn: BTreeSet<&str> = drawn.iter().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect();
    assert_eq!(drawn, known);
}

#[tokio::test]
async fn every_query_runs() {
    let readme = read("README.md");
    let queries = blocks(&readme, "sql");
    assert!(queries.len() >= 3, "only {} queries", queries.len());
    let database = support::database().await;
    for query in queries {
        database.pool.execute(AssertSqlSafe(query)).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    }
}

#[test]
fn the_original_names_are_in_the_library() {
    let readme = read("README.md");
    let table = section(&readme, "## From a program of one's own");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let sources: BTreeMap<&str, String> = ["src/lib.rs", "src/crud/tasks.rs", "src/crud/task_counts.rs", "src/crud/subtasks.rs"]
        .map(|path| (path, read(path)))
        .into();
    for row in rows {
        let mut names: Vec<&str> = spans(row.split(" | ").next().unwrap_or_default()).collect();
        let module = names.first().and_then(|name| name.strip_prefix("crud::"));
        let path = module.map(|module| format!("src/crud/{module}.rs"));
        let source = &sources[path.as_deref().unwrap_or("src/lib.rs")];
        if module.is_some() {
            names.remove(0);
        }
        for name in names {
            let declared = match module {
                Some(_) => source.contains(&format!("pub async fn {name}(")),
                None => source
                    .lines()
                    .filter(|line| line.starts_with("pub use"))
                    .any(|line| line.split(|other: char| !other.is_alphanumeric() && other != '_').any(|word| word == name)),
            };
            assert!(declared, "{name} is not where the README says");
        }
    }
}

#[test]
fn the_demo_is_checked_for_the_counts_that_it_names() {
    let readme = read("README.md").replace('\n', " ");
    let check = read(".ci/run");
    assert!(readme.contains("**21 completed, 3 failed** (2 `refused`, 1 `unknown_submit`"), "the README's counts are others");
    assert!(check.contains("'completed 21, failed/refused 2, failed/unknown_submit 1'"), "the counts of .ci/run are others");
    assert!(readme.contains("26 POSTs make 25 accepted submits") && check.contains("expect 'accepted' '25'"));
}
