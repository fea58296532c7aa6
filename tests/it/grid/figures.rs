//! How small the page is, held against what is promised, and how fast, printed beside it. Times belong to a machine that does
//! nothing else: so it is run by hand, by itself, and no time fails it.

use imagemill::models::{Prompt, TaskInput};
use serde_json::{Value, json};

use super::{
    browser::Browser,
    ended_task,
    page::{LOOKS, change_rows, serious, task_of_3024},
    picture, pictures, written,
};
use crate::support::World;

/// Loads and changes of which the slowest is taken.
const TIMES: usize = 5;

/// Microseconds of the first trace event of this name.
fn at(trace: &[Value], name: &str) -> f64 {
    let found = trace.iter().filter(|event| event["name"] == name).filter_map(|event| event["ts"].as_f64());
    found.fold(f64::INFINITY, f64::min)
}

/// Milliseconds from the navigation to the first paint with content, by the browser's trace.
async fn first_paint(browser: &mut Browser, page: &std::path::Path) -> f64 {
    browser.start_trace().await;
    browser.open(page).await;
    let trace = browser.end_trace().await;
    (at(&trace, "firstContentfulPaint") - at(&trace, "navigationStart")) / 1_000.0
}

/// Milliseconds from the choice of an axis to the frame that shows it, by the browser's trace.
async fn change(browser: &mut Browser, axis: i32) -> f64 {
    let trace = browser.trace(&change_rows(axis)).await;
    (at(&trace, "change-shown") - at(&trace, "change-begins")) / 1_000.0
}

/// Prints a figure, and notes it where it is not what is promised.
fn hold(missed: &mut Vec<String>, what: &str, reached: f64, unit: &str, most: f64) {
    let line = format!("{what:<58} {reached:>9.0} {unit:<5} (promised: {most:.0})");
    eprintln!("{line}");
    if reached.is_nan() || reached > most {
        missed.push(line);
    }
}

/// Prints a time.
fn show(what: &str, reached: f64, most: f64) {
    // What the trace does not have is no time.
    assert!(reached.is_finite() && reached > 0.0, "{what}: {reached} ms");
    let over = if reached > most { ", OVER" } else { "" };
    eprintln!("{what:<58} {reached:>9.0} ms    (promised: {most:.0}{over})");
}

#[tokio::test]
#[ignore = "it measures: run it by itself on a machine that does nothing else"]
async fn the_page_is_as_small_as_is_promised_and_how_fast_it_is() {
    let world = World::new().await;
    let (large, larger) = (task_of_3024(&world).await, fifty_thousand(&world).await);
    // A picture of its own for each cell.
    let kept = pictures(&world).join("kept #1");
    image::imageops::resize(&picture(), 512, 384, image::imageops::FilterType::Nearest).save(kept.join("large.png")).unwrap();
    for cell in 0..3_024 {
        std::fs::copy(kept.join("large.png"), kept.join(format!("{cell}.png"))).unwrap();
    }
    let own =
        "update imagemill.subtasks set result_file = 'kept #1/' || cell || '.png' where task_id = $1 and result_file is not null";
    sqlx::query(own).bind(large).execute(world.pool()).await.unwrap();
    let (said, page) = written(&world, large, &[]).await;
    let (more_said, larger_page) = written(&world, larger, &[]).await;
    let Some(mut browser) = Browser::start().await else { return };
    let mut missed = Vec::new();
    hold(&mut missed, "3,024 cells: the page without pictures", said["page_bytes"].as_f64().unwrap() / 1_000.0, "kB", 3_000.0);
    for (page, cells) in [(&page, "3,024"), (&larger_page, "50,000")] {
        browser.show_as(1440, 900, "light").await;
        let (mut paint, mut axis): (f64, f64) = (0.0, 0.0);
        for _ in 0..TIMES {
            paint = paint.max(first_paint(&mut browser, page).await);
            for rows in [2, 1, 0, -1] {
                axis = axis.max(change(&mut browser, rows).await);
            }
        }
        show(&format!("{cells} cells: first paint, slowest of {TIMES} loads"), paint, 2_000.0);
        show(&format!("{cells} cells: another axis, slowest of {}", 4 * TIMES), axis, 150.0);
    }
    eprintln!("50,000 cells: the page without pictures {:>25} kB", more_said["page_bytes"].as_u64().unwrap() / 1_000);
    for (width, height, theme) in LOOKS {
        browser.show_as(width, height, theme).await;
        browser.open(&page).await;
        let sideways = browser.evaluate("document.documentElement.scrollWidth - innerWidth").await.as_f64().unwrap();
        hold(&mut missed, &format!("{width} px, {theme}: the page scrolls sideways by"), sideways, "px", 0.0);
        let found = serious(&mut browser).await;
        hold(
            &mut missed,
            &format!("{width} px, {theme}: axe-core, serious or worse"),
            found.as_array().unwrap().len() as f64,
            "",
            0.0,
        );
    }
    let elsewhere = browser.requests().into_iter().filter(|url| !url.starts_with("file:")).count();
    hold(&mut missed, "requests to another host", elsewhere as f64, "", 0.0);
    browser.close().await;
    assert_eq!(json!(missed), json!([]));
}

async fn fifty_thousand(world: &World) -> uuid::Uuid {
    let prompts = |name: &str| (0..100).map(|value| Prompt::freetext(format!("{name} {value}"))).collect::<Vec<_>>();
    let input =
        TaskInput::new("50,000 cells").variable_prompt("first", prompts("first")).variable_prompt("second", prompts("second"));
    ended_task(world, input.ratio(["1:1", "2:3", "3:2", "3:4", "4:3"])).await
}
