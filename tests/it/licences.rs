//! Every dependency may be used under a permissive licence.

use std::{collections::BTreeSet, iter::Peekable, process::Command};

use crate::commands::output;

/// The licences that are taken, by their SPDX names. They ask for their text to be kept, and nothing of our own code.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that name a file instead of a licence, and what that file is.
const BY_FILE: &[(&str, &str)] = &[("apalis-postgres", "MIT License")];

async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = output(command).await;
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Whether an expression leaves a way to use the code under accepted licences alone. `/` is an older form of `OR`.
fn is_accepted(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let accepted = either(&mut words);
    accepted && words.next().is_none()
}

fn either<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>) -> bool {
    let mut accepted = both(words);
    while words.next_if_eq(&"OR").is_some() {
        // Read in any case, so that the rest stands where it should.
        accepted |= both(words);
    }
    accepted
}

fn both<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>) -> bool {
    let mut accepted = one(words);
    while words.next_if_eq(&"AND").is_some() {
        accepted &= one(words);
    }
    accepted
}

fn one<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let accepted = either(words);
        return words.next_if_eq(&")").is_some() && accepted;
    }
    let accepted = words.next().is_some_and(|name| ACCEPTED.contains(&name));
    if words.next_if_eq(&"WITH").is_some() {
        // An exception takes conditions away.
        words.next();
    }
    accepted
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    for accepted in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND ISC", "Apache-2.0 WITH LLVM-exception OR GPL-2.0"]
    {
        assert!(is_accepted(accepted), "{accepted}");
    }
    for refused in ["GPL-3.0", "MIT AND GPL-3.0", "MPL-2.0", "(MIT OR ISC) AND (GPL-2.0 OR AGPL-3.0)", "", "(MIT", "MIT GPL-3.0"]
    {
        assert!(!is_accepted(refused), "{refused}");
    }
}

#[tokio::test]
async fn every_dependency_has_a_permissive_licence() {
    let version = run(&std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()), &["-vV"]).await;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("the host");
    // Of this platform, since the crates of others need not be on this machine.
    let arguments = ["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", host];
    let metadata = run(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()), &arguments).await;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("the graph");
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().expect("the packages");
    let packages: Vec<_> = packages.iter().filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id))).collect();
    assert!(packages.len() > 100, "only {} packages were looked at", packages.len());
    let mut refused = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let accepted = match package["license"].as_str() {
            Some(expression) => is_accepted(expression),
            None => BY_FILE.iter().any(|(crate_name, title)| *crate_name == name && licence_file(package).starts_with(title)),
        };
        if !accepted {
            refused.push(format!("{name}: {}", package["license"]));
        }
    }
    assert!(refused.is_empty(), "not permissive, or not known to be:\n{}", refused.join("\n"));
}

/// The text of the licence file that a package names.
fn licence_file(package: &serde_json::Value) -> String {
    let manifest = std::path::Path::new(package["manifest_path"].as_str().unwrap_or_default());
    let file = manifest.with_file_name(package["license_file"].as_str().unwrap_or_default());
    std::fs::read_to_string(file).unwrap_or_default()
}
