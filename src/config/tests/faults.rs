//! Wrong values: each is named with its key, its value and its source, all at once, and no secret among them.

use super::*;

pub(super) fn refused(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Vec<Fault> {
    let (_directory, options) = options(files, variables);
    match load(options) {
        Err(ConfigError::Wrong(faults)) => faults,
        other => panic!("{other:?}"),
    }
}

/// Section and key of the variable, a value, what the reason must say.
const WRONG: [(&str, &str, &str); 56] = [
    ("DATABASE__MAX_CONNECTIONS", "many", "whole number"),
    ("DATABASE__MAX_CONNECTIONS", "-1", "whole number"),
    ("DATABASE__MAX_CONNECTIONS", "2", "must be at least 3"),
    ("DATABASE__STALE_TIMEOUT", "never", "not a duration"),
    ("DATABASE__CONNECT_TIMEOUT", "0", "1ms or more"),
    ("QUEUE__BEAT", "0", "1ms or more"),
    ("QUEUE__BEAT", "-1s", "not a duration"),
    ("QUEUE__LEASE", "6s", "more than twice queue.beat, which is 3s"),
    ("QUEUE__LEASE", "soon", "not a duration"),
    ("QUEUE__POLL_INTERVAL", "0", "1ms or more"),
    ("QUEUE__GRACE", "", "not a duration"),
    ("QUEUE__GRACE", "500d", "longer than a year"),
    ("QUEUE__SWEEP_INTERVAL", "0s", "1ms or more"),
    ("QUEUE__RETENTION", "a day", "not a duration"),
    ("QUEUE__RETENTION", "14s", "queue.lease or more, which is 15s"),
    ("LIMITS__MAX_AXES", "0", "1 or more"),
    ("LIMITS__MAX_VALUES_PER_AXIS", "1.5", "whole number"),
    ("LIMITS__MAX_CELLS", "0", "1 or more"),
    ("LIMITS__MAX_CELLS", "3000000000", "2147483647 or less"),
    ("GENERATE_IMAGE__SLOTS", "0", "1 or more"),
    ("GENERATE_IMAGE__NEW_ATTEMPTS", "two", "whole number"),
    ("GENERATE_IMAGE__ON_UNKNOWN_SUBMIT", "maybe", "one of fail, resubmit"),
    ("GENERATE_IMAGE__ON_POLL_LIMIT", "retry", "one of fail, resubmit"),
    ("GENERATE_IMAGE__DEADLINE", "0", "1ms or more"),
    ("GENERATE_IMAGE__BACKOFF_MIN", "0", "1ms or more"),
    ("GENERATE_IMAGE__BACKOFF_MAX", "10ms", "backoff_min or more, which is 1s"),
    ("COMPLETE_TASK__SLOTS", "0", "1 or more"),
    ("UPSTREAM__TOKEN_HEADER", "", "HTTP header"),
    ("UPSTREAM__TOKEN_HEADER", "X Token", "HTTP header"),
    ("UPSTREAM__TOKEN_PREFIX", "Bearer\n", "printable ASCII"),
    ("UPSTREAM__PLATFORM", "sémantique", "printable ASCII"),
    ("UPSTREAM__CONNECT_TIMEOUT", "0", "1ms or more"),
    ("UPSTREAM__MAX_CONNECTIONS", "0", "1 or more"),
    ("UPSTREAM__IDLE_TIMEOUT", "x", "not a duration"),
    ("LANES__PROD__BASE_URL", "ftp://host", "must be http://host"),
    ("LANES__PROD__BASE_URL", "https://host/?a=b", "must be http://host"),
    ("LANES__OPS__BASE_URL", "host", "relative URL"),
    ("LANES__DEV__SUBMIT_PATH", "v3", "begin with /"),
    ("LANES__DEV__POLL_PATH", "/v1/task", "hold {id}"),
    ("LANES__DEV__POLL_PATH", "v1/{id}", "begin with /"),
    ("LANES__PROD__SUBMIT_TIMEOUT", "0", "1ms or more"),
    ("LANES__PROD__POLL_TIMEOUT", "0", "1ms or more"),
    ("LANES__PROD__MAX_POLLS", "0", "1 or more"),
    ("LANES__PROD__POLL_INTERVAL", "0", "1ms or more"),
    ("LANES__PROD__NOT_ACCEPTED_STATUSES", "200", "from 400 to 599"),
    ("LANES__PROD__NOT_ACCEPTED_STATUSES", "[busy]", "whole number"),
    ("LANES__PROD__NOT_ACCEPTED_STATUSES", "[429, 70000]", "whole number"),
    ("LANES__PROD__REQUEST_ID_HEADER", "a b", "HTTP header"),
    ("RESULTS__MAX_BYTES", "0", "1 or more"),
    ("RESULTS__MAX_BYTES", "64 MiB", "whole number"),
    ("RESULTS__TIMEOUT", "0", "1ms or more"),
    ("LOGS__JSON", "perhaps", "must be a boolean"),
    ("LOGS__FILTER", "a=b=c", "level filter"),
    ("QUEUE__LEESE", "20s", "no such setting"),
    ("LANES__PORD__MAX_POLLS", "3", "no such setting"),
    ("LANES__PROD", "3", "a section"),
];

#[test]
fn each_wrong_value_is_named_with_its_key_and_its_source() {
    for (name, value, reason) in WRONG {
        // Only what writes logs knows the syntax of their filter.
        if name == "LOGS__FILTER" && cfg!(not(feature = "cli")) {
            continue;
        }
        let variable = format!("IMAGEMILL_{name}");
        let file = format!("{variable}=\"{}\"\n", value.replace('\n', "\\n"));
        for (files, variables, source) in [
            (vec![], vec![(variable.as_str(), value)], format!("environment variable {variable}")),
            (vec![(".env", file.as_str())], vec![], format!("{variable} in ")),
        ] {
            let faults = refused(&files, &variables);
            let [fault] = &faults[..] else {
                panic!("{name} {value}: {faults:?}");
            };
            assert_eq!(fault.key, name.to_lowercase().replace("__", "."), "{fault}");
            assert!(fault.source.starts_with(&source), "{fault}");
            assert!(fault.reason.contains(reason), "{fault}");
            let line = fault.to_string();
            assert_eq!(line.lines().count(), 1, "{line}");
            if !value.is_empty() && schema_has(&fault.key) {
                let shown = fault.value.as_deref().unwrap();
                assert_eq!(letters(shown), letters(value), "{line}");
                assert!(line.starts_with(&format!("{} = `", fault.key)), "{line}");
            } else {
                assert_eq!(fault.value, None, "{line}");
            }
        }
    }
}

/// A list is shown as JSON: the same but for its marks.
fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

fn schema_has(key: &str) -> bool {
    loaded(&[], &[]).entries.iter().any(|entry| entry.key == key)
}

#[test]
fn all_faults_come_at_once() {
    let (directory, options) = options(
        &[
            ("Config.toml", "[default.queue]\nbeat = -1\nlese = 3\n[prod.lanes.west]\nmax_polls = 1\n"),
            (".env", "IMAGEMILL_RESULTS__MAX_BYTES=0\nnot a line\n"),
        ],
        &[
            ("TEST_IMAGE_POLLING_INTERVAL", "fast"),
            ("TEST_DB_HOST", "db"),
            ("TEST_DB_PORT", "high"),
            ("IMAGEMILL_QUEUE__LEASE", "1s"),
        ],
    );
    let Err(ConfigError::Wrong(faults)) = load(options) else {
        panic!("it loaded");
    };
    let in_directory = format!("{}/", directory.path().display());
    let mut found: Vec<_> = faults
        .iter()
        .map(|fault| {
            let source = fault.source.replace(&in_directory, "");
            (fault.key.as_str(), fault.value.as_deref(), source)
        })
        .collect();
    found.sort_unstable();
    // The lease is not among them: there is no beat to measure it by.
    assert_eq!(
        found,
        [
            ("database.url", Some("high"), "environment variable TEST_DB_PORT"),
            ("file", None, ".env line 2"),
            ("lanes.prod.poll_interval", Some("fast"), "environment variable TEST_IMAGE_POLLING_INTERVAL"),
            ("lanes.west.max_polls", None, "Config.toml [prod]"),
            ("queue.beat", Some("-1"), "Config.toml [default]"),
            ("queue.lese", None, "Config.toml [default]"),
            ("results.max_bytes", Some("0"), "IMAGEMILL_RESULTS__MAX_BYTES in .env"),
        ]
        .map(|(key, value, source)| (key, value, source.to_owned()))
    );
    let line = ConfigError::Wrong(faults).to_string();
    assert!(line.starts_with("7 wrong settings: "), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_wrong_profile_or_file_says_who_named_it() {
    for (variable, key, value) in [("IMAGEMILL_PROFILE", "profile", "production"), ("IMAGEMILL_CONFIG", "file", "missing.toml")] {
        let faults = refused(&[], &[(variable, value)]);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].key, key);
        assert_eq!(faults[0].value.as_deref(), Some(value));
        assert_eq!(faults[0].source, format!("environment variable {variable}"));
    }
    let (_directory, mut options) = options(&[], &[]);
    options.profile = Some("staging".to_owned());
    let error = load(options).unwrap_err().to_string();
    assert_eq!(error, "1 wrong setting: profile = `staging` (argument): must be dev or prod");
}

#[test]
fn a_file_that_cannot_be_read_is_no_missing_file() {
    let (directory, options) = options(&[], &[]);
    fs::create_dir(directory.path().join(".env")).unwrap();
    let error = load(options).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
}

#[test]
fn a_file_that_is_not_toml_or_has_no_profiles_is_a_fault() {
    for (text, reason) in [
        ("[default.queue]\nlease = = 2\n", "line 2"),
        ("[queue]\nlease = 20\n", "[default.queue]"),
        ("lease = 20\n", "outside the profiles"),
        ("[default]\nqueue = 20\n", "a section"),
    ] {
        let faults = refused(&[("Config.toml", text)], &[]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].reason.contains(reason), "{}", faults[0]);
        assert!(faults[0].source.contains("Config.toml"), "{}", faults[0]);
    }
}

#[test]
fn a_token_and_a_token_file_are_one_too_many() {
    let faults = refused(&[], &[("TEST_MAKE_API_TOKEN", "token"), ("IMAGEMILL_UPSTREAM__API_TOKEN_FILE", "/run/token")]);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].key, "upstream.api_token_file");
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_text_is_a_fault_where_it_matters() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};

    let (_directory, mut options) = options(&[], &[]);
    let bytes = OsString::from_vec(vec![0xff]);
    options.environment.insert("OTHER".to_owned(), bytes.clone());
    assert!(load(options.clone()).is_ok());
    options.environment.insert("TEST_DB_PASSWORD".to_owned(), bytes);
    let error = load(options).unwrap_err().to_string();
    assert!(error.contains("TEST_DB_PASSWORD") && error.contains("UTF-8"), "{error}");
}
