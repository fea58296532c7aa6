//! What the page marks, says and has room for, as somebody chooses.

use imagemill::models::{ConstantPrompt, Prompt, TaskInput};
use serde_json::json;

use super::{browser::Browser, ended_task, written};
use crate::{commands::ends_with, support::World};

/// Marked, said, and what the keyboard's reader is told.
const HERE: &str = "[document.querySelector('.cell.here')?.id, document.getElementById('here').textContent.split(',')[0],
                     document.getElementById('grid').getAttribute('aria-activedescendant')]";

fn prompts(name: &str, count: usize) -> Vec<ConstantPrompt> {
    (0..count).map(|value| Prompt::freetext(format!("{name} {value}"))).collect()
}

#[tokio::test]
async fn at_another_value_of_a_held_axis_keys_act_on_the_same_row_and_column() {
    let world = World::new().await;
    // Rows are the first axis, columns the second; the third is held. A cell is first * 6 + second * 2 + third.
    let input =
        TaskInput::new("held").variable_prompt("first", prompts("first", 4)).variable_prompt("second", prompts("second", 3));
    let task = ended_task(&world, input.ratio(["1:1", "2:3"])).await;
    let (_, page) = written(&world, task, &[]).await;
    let Some(mut browser) = Browser::start().await else { return };
    browser.show_as(1440, 900, "light").await;
    browser.open(&page).await;
    browser.evaluate("document.getElementById('grid').focus()").await;
    for key in ["ArrowDown", "ArrowRight"] {
        browser.press(key).await;
    }
    assert_eq!(browser.evaluate(HERE).await, json!(["cell-8", "cell 8", "cell-8"]));
    let hold =
        "(select => { select.value = 1; select.dispatchEvent(new Event('change')); })(document.querySelector('#rest select'))";
    browser.evaluate(hold).await;
    assert_eq!(browser.evaluate(HERE).await, json!(["cell-9", "cell 9", "cell-9"]));
    browser.evaluate("document.getElementById('grid').focus()").await;
    browser.press("4").await;
    browser.until("document.querySelector('#cell-9 .rated')?.textContent === '★ 4'").await;
    // Other axes for rows and columns: still the same cell, and so where all flow.
    browser.evaluate("document.getElementById('swap').click()").await;
    assert_eq!(browser.evaluate(HERE).await, json!(["cell-9", "cell 9", "cell-9"]));
    let flow = "(rows => { rows.value = -1; rows.dispatchEvent(new Event('change')); })(document.getElementById('axis-y'))";
    browser.evaluate(flow).await;
    assert_eq!(browser.evaluate(HERE).await, json!(["cell-9", "cell 9", "cell-9"]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_phone_held_sideways_has_room_for_pictures() {
    let world = World::new().await;
    let input = TaskInput::new("A study of lanterns in all kinds of weather, by day and by night, seen from the harbour")
        .prompt(Prompt::freetext("a harbour"))
        .variable_prompt("first", prompts("first", 9))
        .variable_prompt("second", prompts("second", 9));
    let task = ended_task(&world, input).await;
    let (_, page) = written(&world, task, &[]).await;
    let Some(mut browser) = Browser::start().await else { return };
    for (width, height) in [(844, 390), (667, 375), (390, 844)] {
        browser.show_as(width, height, "light").await;
        browser.open(&page).await;
        browser.until("document.querySelectorAll('.cell.completed img').length > 4").await;
        let high = browser.evaluate("document.getElementById('grid').clientHeight").await.as_u64().expect("a height");
        assert!(high * 2 > u64::from(height), "{high} of {height} pixels are the grid's");
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth").await, json!(width));
        browser.shoot(&format!("sideways-{width}")).await;
        browser.evaluate("document.querySelector('.cell.completed').click()").await;
        browser.until("document.getElementById('viewer').open").await;
        // All of what can be done there is in sight, and beside or below it a picture.
        let seen = "[...document.querySelectorAll('#stage img, #stars button, #close')].every(part => {
            const place = part.getBoundingClientRect();
            return place.width > 20 && place.top >= 0 && place.bottom <= innerHeight && place.left >= 0 && place.right <= innerWidth; })";
        assert_eq!(browser.evaluate(seen).await, json!(true), "{width} x {height}");
        browser.shoot(&format!("sideways-{width}-viewer")).await;
    }
    browser.close().await;
}

#[tokio::test]
async fn labels_of_any_direction_stand_in_the_order_of_the_axes() {
    let world = World::new().await;
    let hebrew = |letter: &str| Prompt::freetext(format!("\u{5d0}\u{5d1} {letter} 12"));
    let input = TaskInput::new("directions").variable_prompt("\u{5d2}\u{5d3}", [hebrew("\u{5d4}"), hebrew("\u{5d5}")]);
    let input = input.variable_prompt("\u{5d6}\u{5d7}", [hebrew("\u{5d8}"), hebrew("\u{5d9}")]).ratio(["1:1", "2:3"]);
    let task = ended_task(&world, input).await;
    let (_, page) = written(&world, task, &[]).await;
    let Some(mut browser) = Browser::start().await else { return };
    browser.show_as(1440, 900, "light").await;
    browser.open(&page).await;
    let flow = "(rows => { rows.value = -1; rows.dispatchEvent(new Event('change')); })(document.getElementById('axis-y'))";
    browser.evaluate(flow).await;
    browser.evaluate("document.querySelector('.cell.completed').click()").await;
    browser.until("document.getElementById('viewer').open").await;
    // From left to right where each label begins, letter by letter: by the range of its text, wherever it stands.
    let places = "[...document.querySelectorAll('.cell .caption, #viewer-title, #here')].slice(0, 20).map(line => {
        const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT), lefts = [];
        const wanted = line.id === 'here' ? 4 : 2;
        for (let text = texts.nextNode(); text; text = texts.nextNode()) {
            const range = document.createRange(); range.selectNodeContents(text); lefts.push(range.getBoundingClientRect().left); }
        return lefts.length > wanted && lefts.every((left, number) => number === 0 || left >= lefts[number - 1]); })";
    let found = browser.evaluate(places).await;
    let lines = found.as_array().expect("lines");
    assert!(lines.len() >= 6 && lines.iter().all(|line| line == true), "{found}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.shoot("directions").await;
    browser.close().await;
}

#[tokio::test]
async fn places_that_cannot_be_meant_are_told_and_nothing_is_written() {
    let world = World::new().await;
    let task = ended_task(&world, TaskInput::new("places").prompt(Prompt::freetext("a harbour"))).await.to_string();
    for (places, told) in [
        (&["--output", "one.html", "--png", "./one.html"][..], "name two"),
        (&["--output", "-"], "--output takes a file"),
        (&["--png", "-"], "--png takes a file"),
        (&["--pictures", "nowhere"], "nowhere is none"),
        (&["--output", "nowhere/one.html"], "nowhere cannot be used"),
        (&["--png", "nowhere/one.png"], "nowhere cannot be used"),
    ] {
        let mut arguments = vec!["--as", "tester", "task", "grid", &task];
        arguments.extend(places);
        let (_, line) = ends_with(&world, &arguments, 2).await;
        assert!(line.contains(told), "{places:?}: {line}");
    }
    let written: Vec<_> = std::fs::read_dir(world.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(written, ["kept pictures"]);
}
