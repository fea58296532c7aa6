//! What stands in `deploy/`, checked as far as that goes without an engine: names, settings, commands, times that must fit.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use imagemill::config::{self, LoadOptions, Settings};
use serde_json::Value;

use crate::commands::output;

/// The engine writes what is left for so long, after the grace: `WRITING` in `src/queue/engine.rs`, twice.
const WRITING: Duration = Duration::from_secs(20);

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The settings of this environment and of nothing else; every name in it is one.
fn settings(environment: &BTreeMap<String, String>) -> Settings {
    let nowhere = tempfile::tempdir().unwrap();
    let options = LoadOptions {
        profile: None,
        file: None,
        directory: nowhere.path().to_owned(),
        environment: environment.iter().map(|(name, value)| (name.clone(), value.into())).collect(),
        read_env_files: false,
    };
    let loaded = config::load(options).unwrap_or_else(|error| panic!("{environment:?}: {error}"));
    for name in environment.keys().filter(|name| *name != "IMAGEMILL_PROFILE") {
        let is_set = loaded.entries.iter().any(|entry| entry.source.ends_with(name.as_str()));
        assert!(is_set, "{name} sets nothing");
    }
    loaded.settings
}

/// Sees that the program takes these arguments.
fn is_command(arguments: &[String]) {
    let output = Command::new(env!("CARGO_BIN_EXE_imagemill")).args(arguments).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !arguments.is_empty(), "{arguments:?}: {said}");
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for option in arguments.iter().filter(|argument| argument.starts_with("--")) {
        assert!(help.contains(option.as_str()), "{arguments:?} has no {option}");
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

const UNIT: &str = "deploy/imagemill-worker@.service";

/// Keys and values of a unit file, one key many values.
fn unit() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let text = read(UNIT);
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with('[') && !line.is_empty());
    for line in lines {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        found.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    found
}

#[test]
fn the_unit_stops_a_worker_as_a_worker_wants_to_be_stopped() {
    let unit = unit();
    let one = |key: &str| -> &str {
        let values = unit.get(key).unwrap_or_else(|| panic!("there is no {key}"));
        assert_eq!(values.len(), 1, "{key}: {values:?}");
        &values[0]
    };
    let environment = unit["Environment"].iter().map(|pair| pair.split_once('=').unwrap());
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let settings = settings(&environment);
    let seconds = |key: &str| Duration::from_secs(one(key).parse().unwrap_or_else(|_| panic!("{key} is no number of seconds")));
    assert!(seconds("TimeoutStopSec") > settings.queue.grace + WRITING, "it is killed before its grace is over");
    assert_eq!((one("KillSignal"), one("Restart"), one("RestartPreventExitStatus")), ("SIGTERM", "on-failure", "2"));
    // However long PostgreSQL is away at its start.
    assert_eq!((one("StartLimitIntervalSec"), unit.get("StartLimitBurst")), ("0", None));
    let files: usize = one("LimitNOFILE").parse().unwrap();
    assert!(files > 4 * (settings.upstream.max_connections + settings.database.max_connections as usize), "{files} files");
    assert!(settings.logs.directory.is_empty(), "the journal has the logs");
    // The file itself and no copy of it: a reload is to find another token there.
    let token_file = settings.upstream.api_token_file.expect("a file with the token");
    assert_eq!(token_file, PathBuf::from("/etc/imagemill/api_token"));
    assert_eq!(one("ExecReload"), "/bin/kill -HUP $MAINPID");
    let (program, arguments) = one("ExecStart").split_once(' ').unwrap();
    assert!(program.ends_with("/imagemill"), "{program}");
    is_command(&words(arguments));
    for key in ["NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "CapabilityBoundingSet", "SystemCallFilter"] {
        assert!(unit.contains_key(key), "there is no {key}");
    }
    assert!(!["root", "0"].contains(&one("User")));
}

/// What `systemd-analyze verify` says of the unit with this change; none: there is no such program.
async fn verify(from: &str, to: &str) -> Option<String> {
    let program = which::which("systemd-analyze").ok()?;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("imagemill-worker@.service");
    let text = read(UNIT).replace("/usr/local/bin/imagemill", env!("CARGO_BIN_EXE_imagemill"));
    assert!(text.contains(from), "{from}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
    let mut command = Command::new(program);
    command.args(["verify", "--man=no"]).arg(&file).stdin(Stdio::null());
    let output = output(command).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Other units of the machine may have faults of their own.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("imagemill")).collect();
    Some(ours.join("\n"))
}

#[tokio::test]
async fn systemd_finds_no_fault_in_the_unit() {
    let Some(said) = verify("", "").await else {
        println!("skipped: there is no systemd-analyze on this machine");
        return;
    };
    assert_eq!(said, "");
    // It would have said so.
    assert!(verify("KillMode=mixed", "KillModus=mixed").await.unwrap().contains("KillModus"));
}

fn documents() -> Vec<Value> {
    serde_saphyr::from_multiple(&read("deploy/kubernetes.yaml")).expect("YAML")
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("there is no {pointer} in {value:#}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a Vec<Value> {
    at(value, pointer).as_array().unwrap_or_else(|| panic!("{pointer} is no list"))
}

fn strings(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer).iter().map(|word| word.as_str().expect("a text").to_owned()).collect()
}

fn of_kind(kind: &str) -> Value {
    let mut found: Vec<Value> = documents().into_iter().filter(|document| document["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found.remove(0)
}

/// The settings that the manifest's map makes.
fn manifest_settings() -> Settings {
    let map = of_kind("ConfigMap");
    let data = at(&map, "/data").as_object().expect("a map");
    // Kubernetes takes texts alone.
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    settings(&data.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

#[test]
fn the_manifests_times_fit_the_settings() {
    let (deployment, settings) = (of_kind("Deployment"), manifest_settings());
    let seconds = |value: &Value, pointer: &str| Duration::from_secs(at(value, pointer).as_u64().expect("seconds"));
    let pod = at(&deployment, "/spec/template/spec");
    assert!(
        seconds(pod, "/terminationGracePeriodSeconds") > settings.queue.grace + WRITING,
        "it is killed before its grace is over"
    );
    let [worker] = &list(pod, "/containers")[..] else { panic!("not one container") };
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let timeout = seconds(worker, &format!("/{probe}/timeoutSeconds"));
        assert!(timeout > settings.database.connect_timeout, "{probe} ends before it can say that PostgreSQL does not answer");
        let command = strings(worker, &format!("/{probe}/exec/command"));
        assert_eq!(command[0], "imagemill");
        is_command(&command[1..]);
        let tolerates = command.iter().any(|word| word == "--tolerate-outage");
        assert_eq!(tolerates, probe == "livenessProbe", "{probe}: {command:?}");
    }
    // A worker that PostgreSQL came back to needs some beats before it may be called dead.
    let failures = at(worker, "/livenessProbe/failureThreshold").as_u64().expect("a number") as u32;
    assert!(seconds(worker, "/livenessProbe/periodSeconds") * failures > 2 * settings.queue.lease + WRITING);
    assert!(settings.logs.directory.is_empty(), "its file system is read only");
}

#[test]
fn the_manifests_parts_fit_one_another() {
    let deployment = of_kind("Deployment");
    assert_eq!(documents().len(), 2, "another kind of document is not looked at");
    let labels = at(&deployment, "/spec/template/metadata/labels");
    for (name, value) in at(&deployment, "/spec/selector/matchLabels").as_object().expect("a map") {
        assert_eq!(&labels[name], value, "{name}");
    }
    let pod = at(&deployment, "/spec/template/spec");
    assert_eq!(at(pod, "/securityContext/runAsNonRoot"), true);
    let dockerfile = dockerfile();
    let (_, user) = dockerfile.iter().rfind(|(instruction, _)| instruction == "USER").expect("a USER");
    let numbers = format!("{}:{}", at(pod, "/securityContext/runAsUser"), at(pod, "/securityContext/runAsGroup"));
    assert_eq!(&numbers, user);
    let image = format!("imagemill:{}", env!("CARGO_PKG_VERSION"));
    // Wherever the image is named, it is of this version.
    for file in ["deploy/Dockerfile", "deploy/kubernetes.yaml"] {
        let text = read(file);
        let named: Vec<&str> = text.split("imagemill:").skip(1).filter(|rest| rest.starts_with(char::is_numeric)).collect();
        assert!(named.len() >= 2 && named.iter().all(|rest| rest.starts_with(env!("CARGO_PKG_VERSION"))), "{file}");
    }
    let name = at(&of_kind("ConfigMap"), "/metadata/name").clone();
    let containers = [list(pod, "/initContainers").as_slice(), list(pod, "/containers")].concat();
    assert_eq!(containers.len(), 2);
    for container in &containers {
        assert_eq!(container["image"], image.as_str());
        is_command(&strings(container, "/args"));
        assert_eq!(at(container, "/securityContext/allowPrivilegeEscalation"), false);
        assert_eq!(at(container, "/securityContext/readOnlyRootFilesystem"), true);
        assert_eq!(strings(container, "/securityContext/capabilities/drop"), ["ALL"]);
        assert!(at(container, "/resources/requests/memory").is_string() && at(container, "/resources/limits/memory").is_string());
        assert_eq!(at(container, "/envFrom/0/configMapRef/name"), &name);
        // No secret has its value here.
        let variables = list(container, "/env");
        assert_eq!(variables.len(), 1);
        assert_eq!(variables[0]["name"], "DATABASE_URL");
        assert!(at(&variables[0], "/valueFrom/secretKeyRef/key").is_string());
    }
    // The file of the token is where the setting looks.
    let mount = at(&containers[1], "/volumeMounts/0");
    let volume = at(pod, "/volumes/0");
    assert_eq!(mount["name"], volume["name"]);
    let file = at(volume, "/secret/items/0/path").as_str().expect("a path");
    let place = Path::new(at(mount, "/mountPath").as_str().expect("a path")).join(file);
    assert_eq!(manifest_settings().upstream.api_token_file, Some(place));
}

/// Instructions of the Dockerfile, each with what follows it.
fn dockerfile() -> Vec<(String, String)> {
    let text = read("deploy/Dockerfile");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let joined = lines.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line}")))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect()
}

/// A version as numbers.
fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("{text} is no version"))).collect()
}

#[test]
fn the_image_is_built_apart_and_runs_as_nobody() {
    let dockerfile = dockerfile();
    let all = |name: &str| -> Vec<&str> {
        dockerfile.iter().filter(|(instruction, _)| instruction == name).map(|(_, rest)| rest.as_str()).collect()
    };
    let stages = all("FROM");
    assert_eq!(stages.len(), 2);
    for stage in &stages {
        let tag = stage.split(' ').next().unwrap().split_once(':').unwrap_or_else(|| panic!("{stage} has no tag")).1;
        assert_ne!(tag, "latest");
    }
    let rust = stages[0].strip_prefix("rust:").expect("the first stage has Rust");
    assert!(version(rust.split('-').next().unwrap()) >= version(env!("CARGO_PKG_RUST_VERSION")), "{rust} is too old");
    assert!(stages[0].ends_with(" AS build") && !stages[1].contains("rust"));
    let built = all("RUN").iter().any(|run| run.contains("cargo build --locked --release"));
    assert!(built, "it is not built by the lock file");
    let copied = all("COPY");
    assert!(copied.iter().any(|copy| copy.starts_with("--from=build ")));
    // Of the last stage, after everything that needs root.
    let user = dockerfile.iter().rposition(|(instruction, _)| instruction == "USER").expect("a USER");
    let last_run = dockerfile.iter().rposition(|(instruction, _)| instruction == "RUN").expect("a RUN");
    assert!(user > last_run && !dockerfile[user].1.starts_with('0') && !dockerfile[user].1.contains("root"));
    assert_eq!((all("STOPSIGNAL"), all("ENTRYPOINT")), (vec!["SIGTERM"], vec![r#"["imagemill"]"#]));
    let json = |text: &str| -> Vec<String> { serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}")) };
    is_command(&json(all("CMD")[0]));
    let (_, check) = all("HEALTHCHECK")[0].split_once(" CMD ").unwrap();
    assert_eq!(json(check)[0], "imagemill");
    is_command(&json(check)[1..]);
}

#[test]
fn the_image_sees_what_it_is_built_from_and_nothing_else() {
    let text = read("deploy/Dockerfile.dockerignore");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(lines[0], "*");
    for seen in &lines[1..] {
        let seen = seen.strip_prefix('!').unwrap_or_else(|| panic!("{seen} hides what is hidden"));
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(seen).exists(), "there is no {seen}");
        assert!(!["target", ".git", ".env", "logs"].contains(&seen));
    }
    for needed in ["Cargo.toml", "Cargo.lock", "Config.toml", "sqlx.toml", "src", "jobs", "migrations", "examples"] {
        assert!(lines.contains(&format!("!{needed}").as_str()), "the build does not see {needed}");
    }
    for (instruction, rest) in dockerfile() {
        if instruction == "COPY" && !rest.starts_with("--from") && rest != ". ." {
            for file in words(&rest).split_last().unwrap().1 {
                assert!(lines.contains(&format!("!{file}").as_str()), "{file} is not seen");
            }
        }
    }
}

#[test]
fn the_page_names_settings_and_commands_that_there_are() {
    let page = read("deploy/README.md");
    let defaults = Settings::defaults().expect("the built-in settings");
    let mut commands = 0;
    for span in page.replace("```", "").split('`').skip(1).step_by(2) {
        if let Some(command) = span.strip_prefix("imagemill ") {
            commands += 1;
            is_command(&words(command));
        }
        if span.starts_with("deploy/") || span.starts_with("src/") {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(span).exists(), "there is no {span}");
        }
    }
    assert!(commands > 2, "only {commands} commands were looked at");
    let grace = format!("`queue.grace` ({} s)", defaults.queue.grace.as_secs());
    assert!(page.contains(&grace), "it says another grace");
    let connections = format!("`database.max_connections` ({})", defaults.database.max_connections);
    assert!(page.contains(&connections), "it says another number of connections");
}
