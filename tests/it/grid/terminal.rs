//! `top` and `task watch`, on a terminal and elsewhere.

use std::{
    fs::File,
    io::Read as _,
    os::fd::AsFd as _,
    process::Stdio,
    sync::{Arc, Mutex},
};

use imagemill::simulator::{Behaviour, Rule, SimulatorOptions};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    commands::{ends_with, json},
    support::{BOUND, World, eventually},
};

/// A terminal, and what was written to it.
struct Terminal {
    master: File,
    slave: File,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open() -> Self {
        Self::of(100)
    }

    fn of(columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other side");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("UTF-8");
        let slave = File::options().read(true).write(true).open(name).expect("open the other side");
        let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).expect("a size");
        let master = File::from(master);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, shared) = (master.try_clone().expect("share it"), Arc::clone(&written));
        // It ends when every other side is closed.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read) = reader.read(&mut buffer) {
                if read == 0 {
                    break;
                }
                shared.lock().expect("no panic").extend_from_slice(&buffer[..read]);
            }
        });
        Self { master, slave, written }
    }

    fn other_side(&self) -> Stdio {
        self.slave.try_clone().expect("share it").into()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().expect("no panic")).into_owned()
    }

    /// Local modes: whether it echoes and waits for lines.
    fn modes(&self) -> String {
        format!("{:?}", tcgetattr(self.slave.as_fd()).expect("its modes").local_modes)
    }

    fn type_in(&mut self, keys: &[u8]) {
        use std::io::Write as _;
        self.master.write_all(keys).expect("type");
    }
}

#[tokio::test]
async fn top_shows_workers_lanes_and_tasks_once_where_there_is_no_terminal() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.limit_lanes().await;
    let task = world.create(20).await;
    let _worker = world.worker(&["--concurrency", "8"]);
    world.until("select count(*) = 8 from imagemill.attempts where state = 'accepted'").await;
    let (text, _) = ends_with(&world, &["--as", "tester", "top"], 0).await;
    assert!(!text.contains('\u{1b}'), "{text}");
    let line = |begin: &str| {
        let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin}: {text}"));
        line.split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(line("prod")[1..4], ["8", "40", "12"], "in flight, limit, waiting");
    assert_eq!(line("ops")[1..4], ["0", "20", "0"]);
    let row = line(&task.id.to_string());
    assert!(row.contains(&"0/20") && row.contains(&"tester"), "{row:?}");
    let found = json(&world, &["--as", "tester", "--json", "top"]).await;
    assert_eq!(found["workers"][0]["jobs"], 8);
    assert_eq!(found["lanes"][0]["waiting"], 12);
    assert_eq!(found["tasks"][0]["id"], task.id.to_string());
}

#[tokio::test]
async fn top_gives_the_terminal_back_and_has_no_colours_where_none_are_wanted() {
    let world = World::new().await;
    world.create(3).await;
    for (keys, colours) in [(&b"q"[..], true), (&b"\x03"[..], false)] {
        let mut terminal = Terminal::open();
        let before = terminal.modes();
        let mut command = world.command(&["--as", "tester", "top"]);
        command
            .env("TERM", "xterm-256color")
            .stdin(terminal.other_side())
            .stdout(terminal.other_side())
            .stderr(terminal.other_side());
        if !colours {
            command.env("NO_COLOR", "1");
        }
        let mut top = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        eventually("top is drawn", async || terminal.text().contains("0/3")).await;
        assert_ne!(terminal.modes(), before, "keys are read without echo");
        // Refreshed without being asked.
        eventually("top is drawn again", async || terminal.text().matches("0/3").count() >= 2).await;
        terminal.type_in(keys);
        let ended = tokio::time::timeout(BOUND, top.wait()).await.expect("top ends").unwrap();
        assert!(ended.success(), "{}", terminal.text());
        assert_eq!(terminal.modes(), before, "the terminal is as it was");
        eventually("the screen is given back", async || terminal.text().contains("\u{1b}[?1049l")).await;
        let text = terminal.text();
        assert!(text.contains("\u{1b}[?1049h") && text.contains("\u{1b}[?25h"), "{text:?}");
        assert_eq!(text.contains("\u{1b}[1m"), colours, "{text:?}");
    }
}

#[tokio::test]
async fn watch_says_which_cells_fail_and_has_a_bar_for_each_lane() {
    let world =
        World::with(SimulatorOptions { rules: vec![Rule::new(Behaviour::IllegalImage)], ..SimulatorOptions::default() }).await;
    let task = world.create(3).await;
    sqlx::query("update imagemill.subtasks set lane = 'ops' where cell = 2").execute(world.pool()).await.unwrap();
    let id = task.id.to_string();
    let terminal = Terminal::open();
    let mut command = world.command(&["--as", "tester", "task", "watch", &id]);
    command.env("TERM", "xterm-256color").stdout(Stdio::null()).stderr(terminal.other_side());
    let mut watch = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    eventually("the lanes have their bars", async || {
        let text = terminal.text();
        text.contains("prod") && text.contains("ops") && text.contains("0/2")
    })
    .await;
    world.drain().await;
    tokio::time::timeout(BOUND, watch.wait()).await.expect("watch ends").unwrap();
    // What it wrote is read by a thread of its own.
    eventually("it says which failed, and that all have ended", async || {
        let text = terminal.text();
        text.contains("failed, refused") && text.contains("3/3")
    })
    .await;
    // Elsewhere than on a terminal: lines.
    let (_, lines) = ends_with(&world, &["--as", "tester", "task", "watch", &id], 0).await;
    assert!(lines.contains("3/3") && lines.contains("cell 0 failed, refused") && !lines.contains('\u{1b}'), "{lines}");
}

/// What was written, without colours and moves, taken apart where a line or a place on the screen begins.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => {
                let end = letters.by_ref().skip(1).find(char::is_ascii_alphabetic);
                if end != Some('m') {
                    pieces.push(String::new());
                }
            }
            '\r' | '\n' => pieces.push(String::new()),
            _ => pieces.last_mut().expect("there is one").push(letter),
        }
    }
    pieces
}

#[tokio::test]
async fn no_line_is_longer_than_the_terminal_and_elsewhere_nothing_is_cut() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    let name = "A study of lanterns in all kinds of weather, by day and by night, seen from the harbour";
    let task = world.create(20).await.id.to_string();
    sqlx::query("update imagemill.tasks set name = $1").bind(name).execute(world.pool()).await.unwrap();
    let _worker = world.worker(&["--concurrency", "8"]);
    world.until("select count(*) = 8 from imagemill.attempts where state = 'accepted'").await;
    let (plain, _) = ends_with(&world, &["--as", "tester", "task", "list"], 0).await;
    assert!(plain.contains(name), "{plain}");
    for columns in [60, 80, 100] {
        for arguments in [&["task", "list"][..], &["top"], &["task", "watch", &task]] {
            let terminal = Terminal::of(columns);
            let mut all = vec!["--as", "tester"];
            all.extend(arguments);
            let mut command = world.command(&all);
            let [input, output, error] = [terminal.other_side(), terminal.other_side(), terminal.other_side()];
            command.env("TERM", "xterm-256color").stdin(input).stdout(output).stderr(error);
            let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
            let drawn = if arguments.contains(&"watch") { "8 in flight" } else { "A study" };
            eventually("it is drawn", async || terminal.text().contains(drawn)).await;
            if arguments == ["task", "list"] {
                let ended = tokio::time::timeout(BOUND, child.wait()).await.expect("the list ends").unwrap();
                assert!(ended.success(), "{}", terminal.text());
            }
            child.kill().await.unwrap();
            let text = terminal.text();
            let long: Vec<String> =
                pieces(&text).into_iter().filter(|piece| piece.trim_end().chars().count() > columns.into()).collect();
            assert_eq!(long, Vec::<String>::new(), "{arguments:?} at {columns} columns");
            if !arguments.contains(&"watch") {
                assert!(text.contains("NAME") && text.contains('\u{2026}'), "{arguments:?} at {columns}: {text:?}");
            }
            if arguments == ["top"] && columns >= 80 {
                assert!(text.contains("RATE") && text.contains("LEFT"), "{text:?}");
            }
        }
    }
}
