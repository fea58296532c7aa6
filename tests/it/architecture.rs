//! The invariants of the README's "Architecture" that text can show.

use std::{path::Path, process::Command};

use figment::{
    Figment,
    providers::{Format as _, Toml},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Most lines of a file.
const LONGEST: usize = 500;

/// A source file of the library or the program.
struct Source {
    /// Below the project's root, with `/`.
    path: String,
    /// Lines, tests included.
    lines: usize,
    /// Number and text of the lines of code, without comments and tests.
    code: Vec<(usize, String)>,
}

/// The tracked files, and those that are about to be.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached"])
        .current_dir(ROOT)
        .output()
        .ok()
        .filter(|output| output.status.success() && !output.stdout.is_empty());
    match listed {
        Some(output) => {
            let names = String::from_utf8(output.stdout).expect("names in UTF-8");
            let names = names.split('\0').filter(|name| !name.is_empty() && Path::new(ROOT).join(name).is_file());
            names.map(str::to_owned).collect()
        }
        // A copy without git: everything that is not built.
        None => walk(Path::new(ROOT)),
    }
}

fn walk(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("read the directory") {
        let path = entry.expect("read the entry").path();
        let name = path.strip_prefix(ROOT).expect("below the root").to_str().expect("a name in UTF-8").to_owned();
        let ignored = ["target", ".git", "logs", "pictures"].contains(&name.as_str()) || name.starts_with(".env");
        if path.is_dir() && !ignored {
            found.extend(walk(&path));
        } else if path.is_file() && !ignored {
            found.push(name);
        }
    }
    found
}

fn is_rust(path: &str) -> bool {
    ends_in(path, "rs")
}

fn ends_in(path: &str, ending: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == ending)
}

/// The files of `src` and `jobs`, modules of tests left out.
fn sources() -> Vec<Source> {
    let wanted = |path: &String| {
        let is_source = (path.starts_with("src/") || path.starts_with("jobs/")) && is_rust(path);
        is_source && !path.contains("/tests/") && !path.ends_with("/tests.rs")
    };
    let sources: Vec<Source> = files().into_iter().filter(wanted).map(read).collect();
    assert!(sources.len() > 50, "only {} files were looked at", sources.len());
    sources
}

fn read(path: String) -> Source {
    let text = std::fs::read_to_string(Path::new(ROOT).join(&path)).expect("read the source");
    let lines: Vec<&str> = text.lines().collect();
    // The tests of a file are its last module.
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    let code = lines.iter().take(tests.unwrap_or(lines.len())).enumerate();
    let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
    let code = code.map(|(number, line)| (number + 1, (*line).to_owned())).collect();
    Source { path, lines: lines.len(), code }
}

fn below(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

/// Fails with every line outside these places that a condition holds for; and if it holds for none inside, since then it
/// would hold for none anywhere.
fn only_in(places: &[&str], what: &str, holds: impl Fn(&str) -> bool) {
    let mut inside = 0;
    let mut outside = Vec::new();
    for source in sources() {
        for (number, line) in &source.code {
            if holds(line) {
                if below(&source.path, places) {
                    inside += 1;
                } else {
                    outside.push(format!("{}:{number}: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert!(outside.is_empty(), "{what} outside {places:?}:\n{}", outside.join("\n"));
    assert!(places.is_empty() || inside > 0, "{what}: found nowhere, so this test sees nothing");
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|other: char| !other.is_alphanumeric() && other != '_')
}

#[test]
fn apalis_is_named_only_where_the_queue_meets_it() {
    only_in(&["src/queue/", "src/db/", "jobs/worker.rs", "jobs/stock_worker.rs"], "apalis", |line| {
        words(line).any(|word| ["apalis", "apalis_core", "apalis_postgres"].contains(&word))
    });
}

#[test]
fn sql_stands_only_where_it_belongs() {
    let macros =
        ["query", "query_as", "query_scalar", "query_with", "query_as_with", "query_scalar_with", "raw_sql", "QueryBuilder"];
    only_in(&["src/crud/", "src/queue/", "src/db/"], "SQL", |line| {
        macros.iter().any(|name| line.contains(&format!("sqlx::{name}")))
            || (line.trim_start().starts_with("use sqlx") && words(line).any(|word| macros.contains(&word)))
    });
}

#[test]
fn transactions_are_begun_and_committed_only_by_services_and_the_queue() {
    only_in(&["src/services/", "src/queue/", "src/db/"], "a transaction", |line| {
        [".begin(", ".begin_with(", ".commit("].iter().any(|call| line.contains(call))
    });
}

/// Behind a pooler a statement outside a transaction may get another one's answer: services ask their context for a connection.
#[test]
fn connections_are_taken_from_the_pool_only_where_poolers_are_known() {
    only_in(&["src/db/", "src/queue/", "src/commands/bench/"], "a connection of the pool", |line| {
        line.contains(".acquire()") && !line.contains("permits")
    });
}

/// What an id looks like is said once, where each statement may ask for it: `imagemill.as_uuid`.
#[test]
fn the_pattern_of_an_id_stands_once() {
    let is_source = |path: &&String| path.starts_with("src/") && (is_rust(path) || ends_in(path, "sql"));
    let found: Vec<String> = files()
        .iter()
        .filter(is_source)
        .flat_map(|path| {
            let text = std::fs::read_to_string(Path::new(ROOT).join(path)).expect("read the source");
            vec![path.clone(); text.matches("[0-9a-f]{8}").count()]
        })
        .collect();
    assert_eq!(found, ["src/db/views.sql"]);
}

/// Statements that make an index of a table that a live fleet works on.
fn indexes_of_hot_tables(text: &str) -> Vec<String> {
    let hot = ["apalis.jobs", "imagemill.subtasks", "imagemill.attempts", "imagemill.tasks", "imagemill.task_counts"];
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let is_hot = |statement: &&str| {
        ["create index", "create unique index"].iter().any(|words| statement.contains(words))
            && hot.iter().any(|table| statement.contains(&format!(" on {table} ")))
    };
    text.split(';').filter(is_hot).map(str::to_owned).collect()
}

/// A migration is one transaction, and an index made in it keeps everybody from writing for as long as it takes.
#[test]
fn later_migrations_make_no_index_of_a_hot_table() {
    let read = |path: &str| std::fs::read_to_string(Path::new(ROOT).join(path)).expect("read the migration");
    // What came with the first version was made with its tables.
    assert!(!indexes_of_hot_tables(&read("migrations/20261123000002_ledger_and_fleet.sql")).is_empty(), "it sees nothing");
    for path in files().iter().filter(|path| path.as_str() > "migrations/20261123000004") {
        if path.starts_with("migrations/") {
            let found = indexes_of_hot_tables(&read(path));
            assert!(found.is_empty(), "{path}: src/db/indexes.sql is the place for {found:?}");
        }
    }
}

#[test]
fn nothing_panics_on_purpose_outside_tests() {
    let forbidden = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err(", "todo!", "unimplemented!", "panic!(", "dbg!("];
    only_in(&[], "a panic", |line| forbidden.iter().any(|word| line.contains(word)));
}

#[test]
fn modules_depend_in_one_direction() {
    let forbidden = [
        ("src/models/", &["crud", "services", "queue", "db", "config", "app", "commands", "simulator"][..]),
        ("src/config/", &["crud", "services", "queue", "db", "app", "commands", "simulator"]),
        ("src/crud/", &["services", "queue", "db", "app", "commands", "simulator"]),
        ("src/queue/", &["models", "services", "crud", "db", "app", "commands", "simulator"]),
        ("src/db/", &["models", "services", "crud", "queue", "app", "commands", "simulator"]),
        ("src/services/", &["app", "commands", "simulator"]),
        ("src/simulator/", &["services", "crud", "queue", "db", "app", "commands"]),
        ("src/", &["jobs"]),
    ];
    let mut violations = Vec::new();
    let mut looked_at = 0;
    for source in sources() {
        for module in crate_modules(&source.code) {
            looked_at += 1;
            for (directory, others) in forbidden {
                if source.path.starts_with(directory) && others.contains(&module.as_str()) {
                    violations.push(format!("{} uses {module}", source.path));
                }
            }
        }
    }
    assert!(looked_at > 50, "only {looked_at} uses were looked at");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// The modules of this crate that code names: `crate::a::b` and `use crate::{a::b, c}`.
fn crate_modules(code: &[(usize, String)]) -> Vec<String> {
    let text = code.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
    let mut modules = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            modules.extend(words(rest).next().map(str::to_owned));
            continue;
        };
        let (mut depth, mut starts, mut word) = (1, true, String::new());
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && starts && (character.is_alphanumeric() || character == '_') {
                word.push(character);
                continue;
            }
            if !word.is_empty() {
                modules.push(std::mem::take(&mut word));
                starts = false;
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && character == ',' {
                starts = true;
            }
        }
    }
    modules
}

#[test]
fn both_forms_of_use_are_read() {
    let code = ["use crate::{", "    models::{self, Axis},", "    queue,", "};", "fn f() { crate::crud::users::get() }"];
    let code: Vec<(usize, String)> = code.iter().enumerate().map(|(number, line)| (number, (*line).to_owned())).collect();
    assert_eq!(crate_modules(&code), ["models", "queue", "crud"]);
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = files()
        .into_iter()
        .filter(|path| (path.starts_with("src/") || path.starts_with("jobs/")) && is_rust(path))
        .map(read)
        .filter(|source| source.lines > LONGEST)
        .map(|source| format!("{}: {} lines", source.path, source.lines))
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST} lines, look for the seam:\n{}", long.join("\n"));
}

#[test]
fn no_path_of_a_machine_is_in_a_file() {
    // In two parts, or this file would name them.
    let forbidden = [("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/")].map(|(first, second)| format!("{first}{second}"));
    let mut found = Vec::new();
    for path in files() {
        let Ok(text) = std::fs::read_to_string(Path::new(ROOT).join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            // Where Homebrew puts itself on Linux: the same on each machine.
            let line = line.replace(&format!("{}linuxbrew/", forbidden[2]), "");
            // A path of this kind begins a word: `network/` and a URL's own path do not count.
            let begins = |prefix: &String| {
                line.match_indices(prefix.as_str())
                    .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || ".-_~}$".contains(before)))
            };
            if forbidden.iter().any(begins) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn one_name_in_five_places() {
    let payload = read("src/models/payload.rs".to_owned());
    let is_name = |line: &&(usize, String)| line.1.contains("const QUEUE: &'static str");
    let queues: Vec<&str> = payload.code.iter().filter(is_name).filter_map(|(_, line)| line.split('"').nth(1)).collect();
    assert!(!queues.is_empty(), "no queue was found");
    let settings = Figment::from(Toml::file(Path::new(ROOT).join("Config.toml"))).focus("default");
    let registered = read("jobs/worker.rs".to_owned());
    for queue in queues {
        let name = queue.strip_prefix("imagemill.").unwrap_or_else(|| panic!("{queue} does not begin with `imagemill.`"));
        let file = format!("jobs/{name}.rs");
        assert!(Path::new(ROOT).join(&file).is_file(), "{queue}: there is no {file}");
        assert!(settings.find_value(name).is_ok(), "{queue}: Config.toml has no section [default.{name}]");
        let payload_type: String = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        assert!(
            payload.code.iter().any(|(_, line)| line.contains(&format!("pub struct {payload_type} {{"))),
            "no {payload_type}"
        );
        let registration = format!("{payload_type}::QUEUE, {name},");
        assert!(registered.code.iter().any(|(_, line)| line.contains(&registration)), "{queue} is not registered");
    }
}

#[test]
fn every_patch_that_breaks_something_names_a_test_that_is_there() {
    let is_patch = |path: &String| Path::new(path).extension().is_some_and(|extension| extension == "patch");
    let patches: Vec<String> = files().into_iter().filter(is_patch).collect();
    assert!(!patches.is_empty(), "no patch was found");
    for patch in patches {
        let content = std::fs::read_to_string(Path::new(ROOT).join(&patch)).expect("read the patch");
        let test =
            content.lines().find_map(|line| line.strip_prefix("Test: ")).unwrap_or_else(|| panic!("{patch} names no test"));
        let (module, name) = test.rsplit_once("::").expect("a module and a name");
        let path = format!("tests/it/{}", module.replace("::", "/"));
        let file = [format!("{path}.rs"), format!("{path}/mod.rs")].into_iter().find(|file| Path::new(ROOT).join(file).is_file());
        let tests =
            std::fs::read_to_string(Path::new(ROOT).join(file.unwrap_or_else(|| panic!("{patch}: there is no {path}.rs"))));
        assert!(tests.expect("read the tests").contains(&format!("fn {name}(")), "{patch}: there is no {test}");
    }
}
