//! The page in a browser: what it shows, what it lets nobody do, how fast it is.

use std::time::Duration;

use imagemill::{
    models::{Prompt, TaskDefinition, TaskInput},
    services::task_service,
};
use serde_json::{Value, json};

use super::{browser::Browser, end, ended_task, written};
use crate::{
    commands::{ends_with, example},
    support::{BOUND, World, eventually},
};

const AXE: &str = include_str!("axe/axe.min.js");

/// Themes and widths that people have.
pub(super) const LOOKS: [(u32, u32, &str); 4] =
    [(1440, 900, "light"), (1440, 900, "dark"), (390, 844, "light"), (390, 844, "dark")];

pub(super) async fn task_of_3024(world: &World) -> uuid::Uuid {
    let text = std::fs::read_to_string(example("grid-3024.json")).unwrap();
    let given: Value = serde_json::from_str(&text).unwrap();
    let definition = TaskDefinition::from_json(&given, &(&world.context.settings.limits).into()).unwrap();
    let created = task_service::create_task(&world.context, &world.actor, &definition).await.unwrap();
    end(world, created.id).await;
    created.id
}

/// What axe-core finds that is serious or worse.
pub(super) async fn serious(browser: &mut Browser) -> Value {
    browser.evaluate(&format!("{AXE};0")).await;
    let run = "axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations
        .filter(violation => ['serious', 'critical'].includes(violation.impact))
        .map(violation => [violation.id, ...violation.nodes.slice(0, 3).map(node => node.html.slice(0, 200) + node.failureSummary)]))";
    browser.evaluate(run).await
}

/// Chooses an axis for the rows, as a person does, and waits until it is shown.
pub(super) fn change_rows(axis: i32) -> String {
    format!(
        "(async () => {{ const rows = document.getElementById('axis-y'); performance.mark('change-begins'); rows.value = {axis};
          rows.dispatchEvent(new Event('change'));
          await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame); performance.mark('change-shown'); }})()"
    )
}

#[tokio::test]
async fn a_page_of_3024_cells_is_small_and_for_everybody() {
    let world = World::new().await;
    let task = task_of_3024(&world).await;
    let (said, page) = written(&world, task, &[]).await;
    assert_eq!((said["cells"].as_i64(), said["urls"].as_i64()), (Some(3024), Some(0)), "{said}");
    let bytes = said["page_bytes"].as_u64().unwrap();
    assert!(bytes < 3_000_000, "{bytes} bytes without pictures");
    let Some(mut browser) = Browser::start().await else { return };
    for (width, height, theme) in LOOKS {
        browser.show_as(width, height, theme).await;
        browser.open(&page).await;
        browser.until("document.querySelectorAll('.cell.completed img').length > 4").await;
        browser
            .until("[...document.querySelectorAll('.cell img')].some(image => image.complete && image.naturalWidth === 64)")
            .await;
        browser.until("document.querySelectorAll('.cell.failed .why').length > 0").await;
        let widths = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]").await;
        assert_eq!(widths, json!([width, width]), "the page itself scrolls sideways");
        let inner = "(grid => grid.scrollWidth > grid.clientWidth)(document.getElementById('grid'))";
        assert_eq!(browser.evaluate(inner).await, json!(true), "the grid scrolls in its own box");
        assert_eq!(serious(&mut browser).await, json!([]), "axe-core, {width} {theme}");
        browser.shoot(&format!("grid-{width}-{theme}")).await;
        browser.evaluate("document.querySelector('.cell.completed').click()").await;
        browser.until("document.getElementById('viewer').open").await;
        assert_eq!(serious(&mut browser).await, json!([]), "axe-core of one picture, {width} {theme}");
        browser.shoot(&format!("grid-{width}-{theme}-viewer")).await;
    }

    // Another axis is shown at once; how fast is measured by `figures`.
    browser.show_as(1440, 900, "light").await;
    browser.open(&page).await;
    browser.evaluate(&change_rows(2)).await;
    let heads = "[...document.querySelectorAll('.row-head')].map(head => head.textContent).slice(0, 3)";
    assert_eq!(browser.evaluate(heads).await, json!(["1:1", "3:4", "16:9"]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn fifty_thousand_cells_open_and_rows_are_made_as_they_scroll_in() {
    let world = World::new().await;
    let prompts =
        |name: &str, count: usize| (0..count).map(|value| Prompt::freetext(format!("{name} {value}"))).collect::<Vec<_>>();
    let input = TaskInput::new("50,000 cells")
        .variable_prompt("first", prompts("first", 100))
        .variable_prompt("second", prompts("second", 100));
    let task = ended_task(&world, input.ratio(["1:1", "2:3", "3:2", "3:4", "4:3"])).await;
    let (said, page) = written(&world, task, &[]).await;
    assert_eq!(said["cells"], 50_000);
    let Some(mut browser) = Browser::start().await else { return };
    browser.show_as(1440, 900, "dark").await;
    browser.open(&page).await;
    // Every ratio below every first value: 500 rows of 100.
    let all =
        "(select => { select.value = -1; select.dispatchEvent(new Event('change')); })(document.querySelector('#rest select'))";
    browser.evaluate(all).await;
    assert_eq!(browser.evaluate("document.getElementById('grid').getAttribute('aria-rowcount')").await, json!("501"));
    browser.evaluate("(grid => grid.scrollTo(grid.scrollWidth, grid.scrollHeight))(document.getElementById('grid'))").await;
    browser.until("document.getElementById('cell-49998') !== null").await;
    browser.until("document.getElementById('cell-0') === null").await;
    browser.until("document.querySelectorAll('.cell img[src]').length > 10").await;
    let last = "(cell => [cell.querySelector('.unseen').textContent, cell.className])(document.getElementById('cell-49999'))";
    let label = "cell 49999, first 99, second 99, 4:3, waiting";
    assert_eq!(browser.evaluate(last).await, json!([label, "cell pending"]));
    let there = browser.evaluate("document.querySelectorAll('.cell').length").await.as_u64().unwrap();
    assert!((20..400).contains(&there), "{there} cells are in the page, and no more than are seen should be");
    browser.shoot("fifty-thousand").await;
    // All of them in one flow.
    let flow = "(rows => { rows.value = -1; rows.dispatchEvent(new Event('change')); })(document.getElementById('axis-y'))";
    browser.evaluate(flow).await;
    browser.evaluate("(grid => grid.scrollTo(0, grid.scrollHeight))(document.getElementById('grid'))").await;
    browser.until("document.getElementById('cell-49999') !== null && document.querySelectorAll('.cell').length < 400").await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn what_people_wrote_is_shown_and_never_run() {
    let world = World::new().await;
    let hostile = "</script><script>window.ran = 1</script><img src=x onerror=\"window.ran = 2\">";
    let right_to_left = "\u{5d0}\u{5d1}\u{5d2} 12 \u{202e}txet";
    let values = [hostile, right_to_left, "it's \"quoted\" & \u{2028}broken \u{6c34}\u{1f3a8}", hostile];
    let input = TaskInput::new(format!("{hostile} {{{{data}}}}")).variable_prompt(hostile, values.map(Prompt::freetext));
    let task = ended_task(&world, input.prompt(Prompt::freetext(hostile)).batch_size(2)).await;
    sqlx::query("update imagemill.subtasks set result_file = null, result = 'javascript:window.ran = 3' where cell = 0")
        .execute(world.pool())
        .await
        .unwrap();
    let (said, page) = written(&world, task, &[]).await;
    assert_eq!(said["urls"], 0, "an address that is no picture's is not linked");
    let Some(mut browser) = Browser::start().await else { return };
    browser.show_as(1440, 900, "light").await;
    browser.open(&page).await;
    browser.until("document.querySelectorAll('.cell').length === 8").await;
    let heads = "[...document.querySelectorAll('.row-head span')].map(head => head.textContent)";
    assert_eq!(browser.evaluate(heads).await, json!(values.map(str::trim)), "equal values stay apart");
    assert_eq!(browser.evaluate("document.getElementById('name').textContent").await, json!(format!("{hostile} {{{{data}}}}")));
    assert_eq!(browser.evaluate("document.title").await, json!(format!("{hostile} {{{{data}}}}")));
    let failed = "document.querySelector('.cell.failed em').textContent";
    assert_eq!(browser.evaluate(failed).await, json!("</script><b>\"it is 'refused'\" & so on"));
    for cell in 0..8 {
        browser
            .evaluate(&format!("document.getElementById('cell-{cell}').click(); document.getElementById('next').click()"))
            .await;
    }
    assert_eq!(browser.evaluate("window.ran === undefined").await, json!(true), "text of a task was run");
    browser.shoot("hostile").await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let is_file = |url: &String| url.starts_with("file:");
    assert!(browser.requests().iter().all(is_file), "{:?}", browser.requests());
    // Whatever might be run could reach nobody.
    let out = "fetch('http://127.0.0.1:9/').then(() => 'sent', error => String(error))";
    browser.evaluate(out).await;
    let told = browser.complaints().join("\n");
    assert!(told.contains("Content Security Policy"), "{told}");
    browser.close().await;
}

#[tokio::test]
async fn ratings_by_key_are_exported_as_they_are_read() {
    let world = World::new().await;
    let styles = ["woodcut", "watercolour", "ink"].map(Prompt::freetext);
    let task = ended_task(&world, TaskInput::new("rated").variable_prompt("style", styles).ratio(["1:1", "2:3"])).await;
    sqlx::query("update imagemill.subtasks set rating = 2 where cell in (1, 2)").execute(world.pool()).await.unwrap();
    let (_, page) = written(&world, task, &[]).await;
    let Some(mut browser) = Browser::start().await else { return };
    browser.show_as(1440, 900, "light").await;
    browser.open(&page).await;
    // Rows are styles, columns ratios. Cell 0; cell 1 loses its rating; cell 3; cell 5 failed and takes none; cell 2 stays as it was.
    let keys = ["5", "ArrowRight", "0", "ArrowDown", "4", "ArrowDown", "3", "ArrowLeft", "ArrowUp", "1", "2"];
    let began = std::time::Instant::now();
    loop {
        browser.evaluate("localStorage.setItem('probe', 'kept'); document.getElementById('grid').focus()").await;
        for key in keys {
            browser.press(key).await;
        }
        browser.until("document.getElementById('export').textContent === 'Export 3 ratings'").await;
        // They outlive the page.
        browser.reload().await;
        // On a busy machine a browser with a new profile now and then forgets whatever any page stored.
        if browser.evaluate("localStorage.getItem('probe')").await == "kept" {
            break;
        }
        assert!(began.elapsed() < BOUND, "the browser stores nothing");
    }
    browser.until("document.getElementById('export').textContent === 'Export 3 ratings'").await;
    browser.evaluate("document.getElementById('export').click()").await;
    let file = browser.downloads.join(format!("ratings-{task}.json"));
    eventually("the ratings are downloaded", async || std::fs::read(&file).is_ok_and(|bytes| bytes.ends_with(b"\n"))).await;
    let exported: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let ratings = json!([{ "cell": 0, "rating": 5 }, { "cell": 1, "rating": null }, { "cell": 3, "rating": 4 }]);
    assert_eq!(exported, json!({ "task_id": task, "ratings": ratings }));
    let (id, place) = (task.to_string(), file.display().to_string());
    ends_with(&world, &["--as", "tester", "task", "rate", &id, "--from", &place], 0).await;
    let stored = async || -> Vec<Option<i16>> {
        let ratings = sqlx::query_scalar("select rating from imagemill.subtasks where task_id = $1 order by cell").bind(task);
        ratings.fetch_all(world.pool()).await.unwrap()
    };
    let rated = [Some(5), None, Some(2), Some(4), None, None];
    assert_eq!(stored().await, rated);
    // The same file with faults: all of them are told, each with its place, and nothing is rated.
    let mut faulty = exported;
    faulty["ratings"][0]["rating"] = json!(1);
    faulty["ratings"][1]["rating"] = json!("none");
    faulty["ratings"].as_array_mut().unwrap().extend([json!({ "cell": 5, "rating": 2 }), json!({ "cell": 0, "rating": 3 })]);
    std::fs::write(&file, faulty.to_string()).unwrap();
    let (_, told) = ends_with(&world, &["--as", "tester", "task", "rate", &id, "--from", &place], 2).await;
    for fault in ["has 3 faults", "ratings[1].rating", "ratings[3].cell: 5 is failed", "ratings[4].cell: 0 stands in ratings[0]"]
    {
        assert!(told.contains(fault), "{told}");
    }
    assert_eq!(stored().await, rated);
    // Enter opens, keys rate there too, Escape leads back to the grid.
    browser.evaluate("document.getElementById('grid').focus()").await;
    browser.press("Enter").await;
    browser.until("document.getElementById('viewer').open").await;
    browser.press("1").await;
    browser.until("document.querySelector('#stars [aria-pressed=true]').textContent === '1'").await;
    browser.press("Escape").await;
    browser.until("!document.getElementById('viewer').open && document.activeElement.id === 'grid'").await;
    // Another window of the page rates as well: neither forgets what the other one rated.
    let rate = format!(
        "(key => {{ localStorage.setItem(key, '{{\"2\":4}}'); dispatchEvent(new StorageEvent('storage', {{ key }})); }})('imagemill ratings {task}')"
    );
    browser.evaluate(&rate).await;
    browser.until("document.getElementById('export').textContent === 'Export 1 rating'").await;
    assert_eq!(browser.evaluate("document.querySelector('#cell-2 .rated').textContent").await, json!("★ 4"));
    browser.close().await;
}

#[tokio::test]
async fn a_task_without_axes_is_one_picture() {
    const IS_SHOWN: &str =
        "(({ left, right }) => left >= 0 && right <= innerWidth)(document.querySelector('.cell').getBoundingClientRect())";
    let world = World::new().await;
    let task = ended_task(&world, TaskInput::new("One picture").prompt(Prompt::freetext("a lighthouse in the fog"))).await;
    let (said, page) = written(&world, task, &[]).await;
    assert_eq!((said["cells"].as_i64(), said["files"].as_i64()), (Some(1), Some(1)));
    let Some(mut browser) = Browser::start().await else { return };
    for (width, height, theme) in LOOKS {
        browser.show_as(width, height, theme).await;
        browser.open(&page).await;
        browser.until("document.querySelectorAll('.cell img').length === 1").await;
        tokio::time::timeout(Duration::from_mins(1), browser.until("document.querySelector('.cell img').naturalWidth === 64"))
            .await
            .expect("the picture is there");
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth").await, json!(width));
        assert_eq!(serious(&mut browser).await, json!([]), "axe-core, {width} {theme}");
        browser.shoot(&format!("one-{width}-{theme}")).await;
    }
    // It follows the window, as when a phone is turned, until somebody chooses a size.
    browser.show_as(1440, 900, "light").await;
    browser.open(&page).await;
    browser.until(IS_SHOWN).await;
    browser.show_as(390, 844, "light").await;
    browser.until(&format!("innerWidth === 390 && {IS_SHOWN}")).await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}
