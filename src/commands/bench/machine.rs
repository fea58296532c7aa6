//! The machine, as far as the numbers depend on it.

use std::{
    fs::OpenOptions,
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::Instant,
};

use serde::Serialize;

use super::rows::{median, number};

/// Writes whose median counts.
const WRITES: usize = 200;

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Machine {
    /// The processor's name.
    pub(super) cpu: String,
    /// How many can be used.
    pub(super) cores: usize,
    /// Memory, in MiB; none: not to be seen here.
    pub(super) memory_mib: Option<u64>,
    /// Name and release of the system.
    pub(super) kernel: String,
    /// PostgreSQL's version.
    pub(super) postgresql: String,
    /// Its settings that are not its defaults.
    pub(super) postgresql_settings: String,
    /// Median milliseconds to write 8 kB and have them on the disk of PostgreSQL's data, as it writes its log.
    pub(super) fsync_ms: f64,
}

impl Machine {
    /// Looks at it; the data directory is PostgreSQL's.
    pub(super) fn look(postgresql: String, postgresql_settings: String, data: &Path) -> io::Result<Self> {
        let name = rustix::system::uname();
        let said = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let memory = read("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Ok(Self {
            cpu: read("/proc/cpuinfo", "model name").unwrap_or_else(|| said(name.machine())),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: memory.map(|kib| kib / 1024),
            kernel: format!("{} {}", said(name.sysname()), said(name.release())),
            postgresql,
            postgresql_settings,
            fsync_ms: fsync(data)?,
        })
    }

    /// In a few lines.
    pub(super) fn text(&self) -> String {
        let memory = self.memory_mib.map_or_else(String::new, |mib| format!(", {} MiB", number(mib as f64)));
        format!(
            "machine     {}, {} cores{memory}, {}\nPostgreSQL  {}, {}\ndisk        {} ms to have 8 kB on it (median)",
            self.cpu,
            self.cores,
            self.kernel,
            self.postgresql,
            self.postgresql_settings,
            number(self.fsync_ms)
        )
    }
}

/// The value of a line `name : value`.
fn read(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Overwrites a file of its full length, as PostgreSQL does with a file of its log.
fn fsync(directory: &Path) -> io::Result<f64> {
    let path = directory.join("bench-fsync");
    let measured = (|| {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&path)?;
        file.write_all(&vec![0; 8192 * WRITES])?;
        file.sync_all()?;
        let mut took = Vec::with_capacity(WRITES);
        for place in 0..WRITES {
            file.seek(SeekFrom::Start((place * 8192) as u64))?;
            let began = Instant::now();
            file.write_all(&[1; 8192])?;
            file.sync_data()?;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(median(&took).unwrap_or_default())
    })();
    std::fs::remove_file(&path)?;
    measured
}
