//! Logs: to standard error for people, and to a file a day. The ids of task, cell, attempt and upstream are
//! fields of spans; both forms write them with every event below the span.

use std::{fmt, io::IsTerminal, path::PathBuf};

use thiserror::Error;
use tracing::{Subscriber, subscriber::SetGlobalDefaultError};
use tracing_appender::{
    non_blocking::WorkerGuard,
    rolling::{InitError, RollingFileAppender, Rotation},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::RecordFields,
    filter::{LevelFilter, ParseError},
    fmt::{
        FormatFields, MakeWriter,
        format::{DefaultFields, Writer},
        layer,
    },
    layer::SubscriberExt,
};

use crate::config::LogSettings;

/// Why there are no logs.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file of the day cannot be made.
    #[error(
        "cannot write log files to {}: {}; set logs.directory (IMAGEMILL_LOGS__DIRECTORY) to a directory that can be written, or to nothing for no files",
        directory.display(),
        innermost(source)
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        source: InitError,
    },
    /// The filter is none.
    #[error("`{filter}` ({name}) is not a log filter: {source}; write for instance info,imagemill=debug")]
    Filter {
        /// The filter.
        filter: String,
        /// `RUST_LOG` or `logs.filter`.
        name: &'static str,
        /// Why not.
        source: ParseError,
    },
    /// The process logs already.
    #[error("cannot start the logs: {0}")]
    Started(#[from] SetGlobalDefaultError),
}

/// Keeps the log files open. What is still to be written is written when it is dropped.
#[must_use = "without it the log files end at once"]
#[derive(Debug)]
pub struct LogGuard {
    _files: Option<WorkerGuard>,
}

/// Starts the logs of this process, once. `RUST_LOG` beats the filter; colours only on a terminal, and not with
/// `NO_COLOR`.
pub fn start(settings: &LogSettings) -> Result<LogGuard, LogError> {
    start_for(settings, LevelFilter::TRACE)
}

/// The same, with nothing below a warning on standard error: for a command whose own output people read.
pub fn start_quietly(settings: &LogSettings) -> Result<LogGuard, LogError> {
    start_for(settings, LevelFilter::WARN)
}

fn start_for(settings: &LogSettings, for_people: LevelFilter) -> Result<LogGuard, LogError> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && set("NO_COLOR").is_none();
    let (subscriber, guard) = subscriber(settings, set("RUST_LOG"), colours, for_people, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(guard)
}

fn subscriber<W>(
    settings: &LogSettings,
    rust_log: Option<String>,
    colours: bool,
    for_people: LevelFilter,
    people: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, LogGuard), LogError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (name, filter) = match rust_log {
        Some(filter) => ("RUST_LOG", filter),
        None => ("logs.filter", settings.filter.clone()),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|source| LogError::Filter { filter, name, source })?;
    let (files, guard) = match settings.directory.as_str() {
        "" => (None, None),
        directory => {
            let appender = RollingFileAppender::builder()
                .rotation(Rotation::DAILY)
                .filename_prefix("imagemill")
                .filename_suffix("log")
                .build(directory)
                .map_err(|source| LogError::Directory { directory: directory.into(), source })?;
            // A disk that stalls must not stall the worker: beyond the buffer the file loses lines, standard
            // error does not.
            let (writer, guard) = tracing_appender::non_blocking(appender);
            (Some(writer), Some(guard))
        }
    };
    let files = files.map(|writer| -> Box<dyn Layer<_> + Send + Sync> {
        if settings.json {
            Box::new(layer().json().flatten_event(true).with_writer(writer))
        } else {
            Box::new(layer().fmt_fields(FileFields(DefaultFields::new())).with_ansi(false).with_writer(writer))
        }
    });
    let subscriber =
        Registry::default().with(files).with(layer().with_ansi(colours).with_writer(people).with_filter(for_people)).with(filter);
    Ok((subscriber, LogGuard { _files: guard }))
}

/// The default fields under a type of their own: layers of one type share what they write for a span, and the
/// colours of the terminal would get into the file.
struct FileFields(DefaultFields);

impl<'writer> FormatFields<'writer> for FileFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer, fields)
    }
}

/// The reason itself: `InitError` says only that it could not.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        path::Path,
        sync::{Arc, Mutex, PoisonError},
    };

    use tracing::{debug, info, info_span, subscriber::with_default};

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn settings(directory: &Path, json: bool) -> LogSettings {
        LogSettings { directory: directory.display().to_string(), json, filter: "info".to_owned() }
    }

    /// Writes two events in a span; gives what the screen and the one file of the directory hold.
    fn write(settings: &LogSettings, rust_log: Option<&str>, colours: bool) -> (String, String) {
        let screen = Screen::default();
        let writer = screen.clone();
        let people = move || writer.clone();
        let (subscriber, guard) = subscriber(settings, rust_log.map(str::to_owned), colours, LevelFilter::TRACE, people).unwrap();
        with_default(subscriber, || {
            let _span = info_span!("generate_image", task = "T1", cell = 7).entered();
            info!(attempt = 2, upstream = "u-1", "accepted");
            debug!("detail");
        });
        drop(guard);
        let file = match settings.directory.as_str() {
            "" => String::new(),
            directory => {
                let files: Vec<_> = fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
                assert_eq!(files.len(), 1);
                let name = files[0].file_name().into_string().unwrap();
                assert!(name.starts_with("imagemill."), "{name}");
                fs::read_to_string(files[0].path()).unwrap()
            }
        };
        (screen.text(), file)
    }

    #[test]
    fn the_json_file_keeps_the_fields_of_spans() {
        let directory = tempfile::tempdir().unwrap();
        let (screen, file) = write(&settings(&directory.path().join("a/b"), true), None, false);
        let line: serde_json::Value = serde_json::from_str(file.trim()).unwrap();
        assert_eq!(line["message"], "accepted");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["upstream"], "u-1");
        assert_eq!(line["span"]["task"], "T1");
        assert_eq!(line["span"]["cell"], 7);
        assert!(screen.contains("accepted") && screen.contains("T1"), "{screen}");
        assert!(!screen.contains('\u{1b}'), "{screen}");
    }

    #[test]
    fn colours_stay_out_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (screen, file) = write(&settings(directory.path(), false), None, true);
        assert!(screen.contains('\u{1b}'), "{screen}");
        assert!(file.contains("cell=7") && !file.contains('\u{1b}'), "{file}");
    }

    #[test]
    fn rust_log_beats_the_filter_and_no_directory_means_no_file() {
        let (screen, _) = write(&settings(Path::new(""), false), Some("debug"), false);
        assert!(screen.contains("detail"), "{screen}");
        let (screen, _) = write(&settings(Path::new(""), false), None, false);
        assert!(!screen.contains("detail") && screen.contains("accepted"), "{screen}");
    }

    #[test]
    fn faults_name_the_way_out_in_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = |settings: &LogSettings, rust_log: Option<&str>| {
            let rust_log = rust_log.map(str::to_owned);
            match subscriber(settings, rust_log, false, LevelFilter::TRACE, std::io::sink) {
                Ok(_) => panic!("it started"),
                Err(error) => error.to_string(),
            }
        };
        // A directory below a file cannot be made, not even by root.
        let error = refused(&settings(&file.path().join("logs"), false), None);
        assert!(error.contains(&file.path().display().to_string()), "{error}");
        assert!(error.contains("Not a directory"), "{error}");
        assert!(error.contains("IMAGEMILL_LOGS__DIRECTORY"), "{error}");
        assert_eq!(error.lines().count(), 1);
        let error = refused(&settings(Path::new(""), false), Some("a=b=c"));
        assert!(error.contains("a=b=c") && error.contains("RUST_LOG"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}
