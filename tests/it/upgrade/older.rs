//! Older programs: found in the history, built once, kept in the target directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::sync::Mutex;

use crate::commands::{output, output_within};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Either a commit with an older program, or why there is none.
pub(super) type Found = Result<String, &'static str>;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(ROOT).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether there is a history to look into.
fn history() -> Result<(), &'static str> {
    match git(&["rev-parse", "--is-shallow-repository"]).as_deref() {
        Some("false") => Ok(()),
        Some(_) => Err("a shallow clone has no history (git fetch --unshallow)"),
        None => Err("there is no git history here"),
    }
}

/// The last commit of the main line whose migrations are some of today's, each as it is today: one that was still being written
/// then has no way to today's.
pub(super) fn before_the_newest_migration() -> Found {
    history()?;
    let today = fs::read_dir(Path::new(ROOT).join("migrations")).expect("the migrations");
    let today: BTreeSet<String> = today
        .map(|file| {
            let path = file.expect("a migration").path();
            let content = git(&["hash-object", path.to_str().expect("a name in UTF-8")]).expect("its hash");
            format!("{content}\tmigrations/{}", path.file_name().expect("its name").to_string_lossy())
        })
        .collect();
    let commits = git(&["log", "--first-parent", "--format=%H", "HEAD"]).unwrap_or_default();
    let before = commits.lines().find(|commit| {
        let then = migrations_at(commit);
        !then.is_empty() && then.len() < today.len() && then.is_subset(&today)
    });
    before.map_or(Err("nothing older to try: the newest migration came with the first"), |before| Ok(before.to_owned()))
}

/// Content's hash and name of each migration at a commit.
fn migrations_at(commit: &str) -> BTreeSet<String> {
    let listed = git(&["ls-tree", "-r", commit, "migrations/"]).unwrap_or_default();
    listed.lines().filter_map(|line| Some(line.split_once(" blob ")?.1.to_owned())).collect()
}

/// The environment variables of this command that a program refuses because they came after it.
pub(super) async fn unknown_settings(command: Command) -> Vec<String> {
    let output = output(command).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let unknown = |line: &str| {
        let (before, _) = line.split_once("): there is no such setting")?;
        Some(before.rsplit_once("environment variable ")?.1.to_owned())
    };
    said.split(';').filter_map(unknown).collect()
}

/// The last commit before the newest version of a payload.
pub(super) fn before_the_newest_payload() -> Found {
    history()?;
    let now = versions(&fs::read_to_string(Path::new(ROOT).join("src/models/payload.rs")).expect("the payloads"));
    assert!(!now.is_empty(), "no version was found, so this sees nothing");
    if has_newer(&now, &versions_at("HEAD")) {
        // Not committed yet.
        return Ok(commit("HEAD"));
    }
    let commits = git(&["log", "-G", "VERSION: u32 = [0-9]", "--format=%H", "--", "src/models/payload.rs"]).unwrap_or_default();
    let newer = commits.lines().find(|commit| has_newer(&versions_at(commit), &versions_at(&format!("{commit}^"))));
    newer.map_or(Err("nothing older to try: every payload has its first version"), |newer| Ok(commit(&format!("{newer}^"))))
}

fn commit(name: &str) -> String {
    git(&["rev-parse", name]).expect("a commit")
}

/// The version of each payload at a commit.
fn versions_at(commit: &str) -> BTreeMap<String, u32> {
    versions(&git(&["show", &format!("{commit}:src/models/payload.rs")]).unwrap_or_default())
}

/// `impl NAME {` ... `VERSION: u32 = 1;`, by name.
fn versions(text: &str) -> BTreeMap<String, u32> {
    let mut payload = String::new();
    let mut versions = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("impl ").and_then(|rest| rest.strip_suffix(" {")) {
            name.clone_into(&mut payload);
        }
        let version = line.split_once("VERSION: u32 = ").and_then(|(_, rest)| rest.strip_suffix(';')?.parse().ok());
        versions.extend(version.map(|version| (payload.clone(), version)));
    }
    versions
}

fn has_newer(now: &BTreeMap<String, u32>, before: &BTreeMap<String, u32>) -> bool {
    now.iter().any(|(payload, version)| before.get(payload).is_some_and(|before| version > before))
}

/// So many commits are tried, each the one before the last.
const TRIED: usize = 5;

/// The program of a commit, or of the last one before it that can be built: not every commit of a history can. Builds it where
/// it was not built before; what it depends on is built once for all of them.
pub(super) async fn program(found: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::const_new(());
    let _one_at_a_time = BUILDING.lock().await;
    // `target/debug/imagemill`, whatever the directory is called.
    let built = Path::new(env!("CARGO_BIN_EXE_imagemill"));
    let debug = built.parent().expect("the directory of this build");
    let place = debug.parent().expect("the target directory").join("upgrade");
    fs::create_dir_all(&place).expect("make the directory of older programs");
    seed(debug, &place.join("target/debug"));
    let mut said = String::new();
    for back in 0..TRIED {
        let Some(commit) = git(&["rev-parse", "--verify", "--quiet", &format!("{found}~{back}")]) else { break };
        let program = place.join(format!("imagemill-{commit}"));
        if program.is_file() {
            return program;
        }
        match make(&commit, &place, &program).await {
            Ok(()) => return program,
            Err(error) => said = error,
        }
        eprintln!("{commit} cannot be built: the one before it is tried");
    }
    panic!("neither {found} nor those before it can be built:\n{said}");
}

/// Builds the program of a commit.
async fn make(commit: &str, place: &Path, program: &Path) -> Result<(), String> {
    let target = place.join("target");
    let sources = tempfile::Builder::new().prefix("sources-").tempdir_in(place).expect("a directory for the sources");
    unpack(commit, sources.path());
    if build(sources.path(), &target, &["--offline"]).await.is_err() {
        build(sources.path(), &target, &[]).await?;
    }
    // Under its own name in one step: nobody finds half of it.
    let copy = sources.path().join("imagemill.built");
    fs::copy(target.join("debug/imagemill"), &copy).expect("copy the program");
    fs::rename(&copy, program).expect("keep the program");
    Ok(())
}

/// What the present program depends on is built already, and most of it is the same: it is linked and not built again. Where
/// that cannot be done it takes longer, no more.
fn seed(debug: &Path, target: &Path) {
    if target.exists() || fs::create_dir_all(target).is_err() {
        return;
    }
    let parts = ["deps", "build", ".fingerprint"].map(|part| debug.join(part));
    let _ = Command::new("cp").arg("-al").args(parts).arg(target).stdin(Stdio::null()).stderr(Stdio::null()).status();
    // Of no use to another commit, and large: a link would keep them on the disk after the present ones are gone.
    for file in fs::read_dir(target.join("deps")).into_iter().flatten().flatten() {
        let name = file.file_name();
        if ["it-", "imagemill-", "libimagemill-"].iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            let _ = fs::remove_file(file.path());
        }
    }
}

fn unpack(commit: &str, place: &Path) {
    let mut archive = Command::new("git")
        .args(["archive", commit])
        .current_dir(ROOT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git archive");
    let files = archive.stdout.take().expect("its output");
    let unpacked = Command::new("tar").arg("-x").current_dir(place).stdin(files).status().expect("tar");
    assert!(archive.wait().expect("git archive").success() && unpacked.success(), "{commit} cannot be unpacked");
}

async fn build(sources: &Path, target: &Path, how: &[&str]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsStr::new("cargo").to_owned());
    let mut build = Command::new(cargo);
    // What this test was told of its own package is not meant for another: dependencies would be built again for it.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|told| name.to_string_lossy().starts_with(told)) {
            build.env_remove(name);
        }
    }
    build
        .args(["build", "--locked", "--bin", "imagemill"])
        .args(how)
        .current_dir(sources)
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null());
    let output = output_within(Duration::from_mins(30), build).await;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn versions_are_read_by_payload() {
    let older = versions("impl A {\n    pub const VERSION: u32 = 1;\n}\nimpl B {\n    pub const VERSION: u32 = 3;\n}\n");
    let newer = versions("impl A {\n    pub const VERSION: u32 = 2;\n}\n");
    assert_eq!(older, BTreeMap::from([("A".to_owned(), 1), ("B".to_owned(), 3)]));
    assert!(has_newer(&newer, &older) && !has_newer(&older, &newer) && !has_newer(&older, &older));
    // A payload that is new, or that had no version of its own, has no older form.
    assert!(!has_newer(&older, &versions("pub const PAYLOAD_VERSION: u32 = 1;\n")));
}
