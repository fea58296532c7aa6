//! The layers, the names and the faults of settings, without touching the environment of the process.

use std::{collections::BTreeMap, fs, time::Duration};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

mod faults;
mod secrets;

/// A directory with these files, and these variables as the environment.
fn options(files: &[(&str, &str)], variables: &[(&str, &str)]) -> (TempDir, LoadOptions) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let options = LoadOptions {
        profile: None,
        file: None,
        directory: directory.path().to_owned(),
        environment: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect(),
        read_env_files: true,
    };
    (directory, options)
}

fn loaded(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Loaded {
    let (_directory, options) = options(files, variables);
    load(options).unwrap()
}

fn url(loaded: &Loaded) -> &str {
    loaded.settings.database.url.as_ref().unwrap().expose_secret()
}

fn source(loaded: &Loaded, key: &str) -> String {
    let entry = loaded.entries.iter().find(|entry| entry.key == key);
    entry.unwrap().source.clone()
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let settings = Settings::defaults().unwrap();
    assert!(settings.database.url.is_none());
    assert_eq!(settings.database.max_connections, 8);
    assert_eq!(settings.database.stale_timeout, Duration::from_mins(5));
    assert_eq!(settings.database.private_directory, None);
    assert_eq!(settings.queue.beat, Duration::from_secs(3));
    assert_eq!(settings.queue.lease, Duration::from_secs(15));
    assert_eq!(settings.queue.grace, Duration::from_secs(25));
    assert_eq!(settings.limits.max_cells, 50_000);
    assert_eq!(settings.generate_image.slots, 40);
    assert_eq!(settings.generate_image.on_unknown_submit, UncertainPolicy::Fail);
    assert_eq!(settings.generate_image.deadline, Duration::from_mins(30));
    assert_eq!(settings.upstream.token_header, "X-Token");
    assert_eq!(settings.results.max_bytes, 64 * 1024 * 1024);
    assert_eq!(settings.results.directory, None);
    let lanes: Vec<_> = settings.lanes.keys().collect();
    assert_eq!(lanes, ["dev", "ops", "prod"]);
    let ops = &settings.lanes["ops"];
    assert_eq!((ops.max_polls, ops.poll_interval), (50, Duration::from_secs(3)));
    assert_eq!(ops.base_url.as_ref().unwrap().as_str(), "https://ops.api.talesofai.cn/");
    assert_eq!(ops.not_accepted_statuses, [429, 503]);
    assert!(settings.lanes["dev"].base_url.is_none());
}

/// serde refuses a key of the file that is no setting (`deny_unknown_fields`), and a setting that is in no
/// file; this keeps `[dev]` and `[prod]` from hiding either.
#[test]
fn every_setting_stands_in_the_default_profile_and_nothing_else_stands_in_the_file() {
    let mut profiles = schema::profiles(schema::BUILT_IN, "built in").unwrap();
    let defaults = profiles.remove("default").unwrap();
    for (name, values) in profiles {
        for key in values.keys() {
            assert!(defaults.contains_key(key), "{key} of [{name}]");
        }
    }
    for key in defaults.keys() {
        let mut fewer = defaults.clone();
        fewer.remove(key);
        let layer = schema::Layer { source: String::new(), values: fewer };
        assert!(figment::Figment::from(layer).extract::<Settings>().is_err(), "{key} has a default that stands in no file");
    }
    assert_eq!(loaded(&[], &[]).entries.len(), defaults.len());
}

#[test]
fn each_layer_beats_the_one_before() {
    let layers = [
        ("Config.toml", "[default.queue]\nlease = 21\n"),
        ("Config.toml", "[default.queue]\nlease = 21\n[dev.queue]\nlease = 22\n"),
        (".env", "IMAGEMILL_QUEUE__LEASE=23s\n"),
        (".env.dev", "IMAGEMILL_QUEUE__LEASE=24s\n"),
    ];
    let mut files = BTreeMap::new();
    for ((name, text), (seconds, origin)) in
        layers.into_iter().zip([(21, "Config.toml [default]"), (22, "Config.toml [dev]"), (23, ".env"), (24, ".env.dev")])
    {
        files.insert(name, text);
        let all: Vec<_> = files.iter().map(|(name, text)| (*name, *text)).collect();
        let loaded = loaded(&all, &[]);
        assert_eq!(loaded.settings.queue.lease, Duration::from_secs(seconds));
        assert!(source(&loaded, "queue.lease").ends_with(origin), "{origin}");
        assert_eq!(source(&loaded, "queue.beat"), "built in [default]");
    }
    let all: Vec<_> = files.iter().map(|(name, text)| (*name, *text)).collect();
    let variable = ("IMAGEMILL_QUEUE__LEASE", "25");
    let loaded_all = loaded(&all, &[variable]);
    assert_eq!(loaded_all.settings.queue.lease, Duration::from_secs(25));
    assert_eq!(source(&loaded_all, "queue.lease"), "environment variable IMAGEMILL_QUEUE__LEASE");
    let ignoring = loaded(&all, &[("IMAGEMILL_IGNORE_ENV_FILES", "1")]);
    assert_eq!(ignoring.settings.queue.lease, Duration::from_secs(22));
}

#[test]
fn the_profile_is_picked_by_argument_then_variable_then_file() {
    let files = [
        (".env", "IMAGEMILL_PROFILE=prod\n"),
        (".env.prod", "IMAGEMILL_QUEUE__GRACE=31s\n"),
        ("Config.toml", "[prod.queue]\nbeat = 2\n"),
    ];
    let from_file = loaded(&files, &[]);
    assert_eq!(from_file.profile, "prod");
    assert!(from_file.settings.logs.json);
    assert_eq!(from_file.settings.queue.grace, Duration::from_secs(31));
    assert_eq!(from_file.settings.queue.beat, Duration::from_secs(2));
    let from_variable = loaded(&files, &[("IMAGEMILL_PROFILE", "dev")]);
    assert_eq!(from_variable.profile, "dev");
    assert!(!from_variable.settings.logs.json);
    assert_eq!(from_variable.settings.queue.grace, Duration::from_secs(25));
    let (_directory, mut options) = options(&files, &[("IMAGEMILL_PROFILE", "dev")]);
    options.profile = Some("prod".to_owned());
    assert_eq!(load(options).unwrap().profile, "prod");
    assert_eq!(loaded(&[], &[]).profile, "dev");
}

#[test]
fn the_file_is_named_by_argument_or_variable() {
    let files = [
        ("Config.toml", "[default.queue]\nlease = 21\n"),
        ("other.toml", "[default.queue]\nlease = 22\n"),
        ("third.toml", "[default.queue]\nlease = 23\n"),
        ("copy.toml", schema::BUILT_IN),
    ];
    let lease = |argument: Option<&str>, variables: &[(&str, &str)]| {
        let (_directory, mut options) = options(&files, variables);
        options.file = argument.map(Into::into);
        load(options).unwrap().settings.queue.lease.as_secs()
    };
    assert_eq!(lease(None, &[]), 21);
    assert_eq!(lease(None, &[("IMAGEMILL_CONFIG", "other.toml")]), 22);
    assert_eq!(lease(Some("third.toml"), &[("IMAGEMILL_CONFIG", "other.toml")]), 23);
    let copy = loaded(&files, &[("IMAGEMILL_CONFIG", "copy.toml")]);
    assert_eq!(source(&copy, "queue.lease"), "built in [default]");
}

#[test]
fn the_names_of_the_original_work() {
    let loaded = loaded(
        &[(".env", "TEST_DB_PASSWORD='p@ss:w/rd $1'\n")],
        &[
            ("TEST_DB_HOST", "db.internal"),
            ("TEST_DB_PORT", "6432"),
            ("TEST_DB_NAME", "images/1"),
            ("TEST_DB_USER", "me@home"),
            ("TEST_DB_MAX_CONNECTIONS", "3"),
            ("TEST_DB_STALE_TIMEOUT", "90"),
            ("TEST_IMAGE_MAX_POLLING_ATTEMPTS", "12"),
            ("TEST_IMAGE_POLLING_INTERVAL", "0.5"),
            ("TEST_MAKE_API_TOKEN", "12345"),
        ],
    );
    assert_eq!(url(&loaded), "postgres://me%40home:p%40ss%3Aw%2Frd%20%241@db.internal:6432/images%2F1");
    let settings = &loaded.settings;
    assert_eq!(settings.database.max_connections, 3);
    assert_eq!(settings.database.stale_timeout, Duration::from_secs(90));
    assert_eq!(settings.lanes["prod"].max_polls, 12);
    assert_eq!(settings.lanes["prod"].poll_interval, Duration::from_millis(500));
    assert_eq!(settings.lanes["ops"].max_polls, 50);
    let token = settings.upstream.api_token.as_ref().unwrap();
    assert_eq!(token.expose_secret(), "12345");
    assert!(source(&loaded, "database.url").contains("TEST_DB_HOST"));
}

#[test]
fn a_database_is_configured_by_any_of_host_name_and_user() {
    let only = |variables: &[(&str, &str)]| loaded(&[], variables);
    assert_eq!(url(&only(&[("TEST_DB_NAME", "images")])), "postgres://localhost/images");
    assert_eq!(url(&only(&[("TEST_DB_USER", "me")])), "postgres://me@localhost");
    assert_eq!(url(&only(&[("TEST_DB_HOST", "::1")])), "postgres://[::1]");
    let socket = only(&[("TEST_DB_HOST", "/run/postgresql"), ("TEST_DB_NAME", "images")]);
    assert_eq!(url(&socket), "postgres://%2Frun%2Fpostgresql/images");
    for variables in [&[("TEST_DB_PASSWORD", "x"), ("TEST_DB_PORT", "5432")][..], &[("TEST_DB_HOST", ""), ("DATABASE_URL", "")]] {
        assert!(only(variables).settings.database.url.is_none());
    }
}

#[test]
fn within_a_source_the_closer_name_beats() {
    let mut variables = vec![("TEST_DB_HOST", "one")];
    assert_eq!(url(&loaded(&[], &variables)), "postgres://one");
    variables.push(("DATABASE_URL", "postgres://two"));
    assert_eq!(url(&loaded(&[], &variables)), "postgres://two");
    variables.push(("IMAGEMILL_DATABASE__URL", "postgres://three"));
    assert_eq!(url(&loaded(&[], &variables)), "postgres://three");
    // And a source beats the one before it, whatever its names.
    let file = [(".env", "IMAGEMILL_DATABASE__URL=postgres://four\n")];
    assert_eq!(url(&loaded(&file, &[("TEST_DB_HOST", "one")])), "postgres://one");
}

#[test]
fn other_variables_are_no_settings() {
    let loaded = loaded(
        &[(".env", "IMAGEMILL_PASSWORD_USER=secret\n")],
        &[
            ("IMAGEMILL_USER", "ann"),
            ("IMAGEMILL_LANES__PROD__NOT_ACCEPTED_STATUSES", "429, 529"),
            ("IMAGEMILL_LOGS__JSON", "true"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!(loaded.variable("IMAGEMILL_USER").unwrap().expose_secret(), "ann");
    let password = loaded.variable("IMAGEMILL_PASSWORD_USER").unwrap();
    assert_eq!(password.expose_secret(), "secret");
    assert!(loaded.variable("IMAGEMILL_LOGS__JSON").is_none());
    assert!(loaded.variable("PATH").is_none());
    assert_eq!(loaded.settings.lanes["prod"].not_accepted_statuses, [429, 529]);
    assert!(loaded.settings.logs.json);
}
