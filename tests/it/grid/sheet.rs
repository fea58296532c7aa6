//! The contact sheet.

use imagemill::models::{Prompt, TaskInput};

use super::{ended_task, written};
use crate::support::World;

#[tokio::test]
async fn a_sheet_is_labelled_and_above_its_size_there_are_several() {
    let world = World::new().await;
    let styles: Vec<_> = (0..100).map(|value| Prompt::freetext(format!("style {value} \u{6c34}\u{5d0}"))).collect();
    let small =
        ended_task(&world, TaskInput::new("small").variable_prompt("style", styles[..3].to_vec()).ratio(["1:1", "2:3"])).await;
    let file = world.directory.path().join("sheets").join("sheet.png");
    std::fs::create_dir(world.directory.path().join("sheets")).unwrap();
    let png = file.display().to_string();
    let (said, _) = written(&world, small, &["--png", &png]).await;
    assert_eq!(said["sheets"], serde_json::json!([png]));
    let sheet = image::open(&file).unwrap().to_rgb8();
    // Two columns, three rows, 168 pixels each, and the labels before and above.
    assert_eq!(sheet.dimensions(), (176 + 2 * 168, 84 + 3 * 168));
    let inked = |left: u32, top: u32, width: u32, height: u32| {
        let pixels = (left..left + width).flat_map(|x| (top..top + height).map(move |y| (x, y)));
        pixels.filter(|(x, y)| sheet.get_pixel(*x, *y).0 == [0x15, 0x18, 0x1c]).count()
    };
    for (what, left, top, width, height) in
        [("heading", 8, 8, 300, 16), ("column", 176, 40, 160, 44), ("row", 8, 84, 150, 64), ("last row", 8, 420, 150, 64)]
    {
        assert!(inked(left, top, width, height) > 20, "the {what} has no label");
    }
    // Cell 5 failed: the last row's second column; cell 0 has its picture.
    let place = |column: u32, row: u32| sheet.get_pixel(176 + column * 168 + 150, 84 + row * 168 + 150).0;
    assert!([[0xfc, 0xf0, 0xee], [0xf2, 0xd5, 0xd0]].contains(&place(1, 2)), "{:?}", place(1, 2));
    assert_ne!(sheet.get_pixel(176 + 80, 84 + 80).0, [0xff; 3]);

    let large = ended_task(
        &world,
        TaskInput::new("large").variable_prompt("style", styles.clone()).variable_prompt("again", styles[..20].to_vec()),
    )
    .await;
    let (said, _) = written(&world, large, &["--png", &png]).await;
    let sheets: Vec<&str> = said["sheets"].as_array().unwrap().iter().filter_map(|sheet| sheet.as_str()).collect();
    assert_eq!(sheets.len(), 2, "{sheets:?}");
    let heights = sheets.iter().map(|sheet| image::image_dimensions(sheet).unwrap());
    let heights: Vec<u32> = heights.inspect(|(width, _)| assert_eq!(*width, 176 + 20 * 168)).map(|(_, height)| height).collect();
    assert!(heights.iter().all(|height| *height <= 16_000), "{heights:?}");
    assert_eq!(heights.iter().map(|height| height - 84).sum::<u32>(), 100 * 168);
}

#[tokio::test]
async fn of_few_pictures_each_is_larger() {
    let world = World::new().await;
    let file = world.directory.path().join("sheet.png");
    let png = file.display().to_string();
    let name = "A single lighthouse in the fog, as the keeper sees it";
    let one = ended_task(&world, TaskInput::new(name).prompt(Prompt::freetext("a lighthouse"))).await;
    written(&world, one, &["--png", &png]).await;
    assert_eq!(image::image_dimensions(&file).unwrap(), (8 + 648, 84 + 648));
    let lights = ["dawn", "dusk"].map(Prompt::freetext);
    let four = ended_task(&world, TaskInput::new(name).variable_prompt("light", lights).ratio(["1:1", "2:3"])).await;
    written(&world, four, &["--png", &png]).await;
    assert_eq!(image::image_dimensions(&file).unwrap(), (176 + 2 * 328, 84 + 2 * 328));
}
