// One picture, as large as there is room for, with what is known of its cell.
const viewer = byId("viewer");
const stage = byId("stage");

function open(position) {
  go(position);
  show();
  if (!viewer.open) viewer.showModal();
}

function show() {
  const cell = plan.cell(view.position);
  const address = picture(cell);
  byId("viewer-title").replaceChildren(...joined(axes.length ? labels(cell) : [data.task.name], " · "));
  stage.classList.remove("whole");
  byId("zoom").setAttribute("aria-pressed", "false");
  if (address === null) {
    const box = element("div", `cell ${state(cell)}`);
    const text = why(cell);
    text.removeAttribute("aria-hidden");
    box.append(text);
    stage.replaceChildren(box);
  } else {
    const image = new Image();
    image.alt = `Picture of ${spoken(cell)}`;
    image.addEventListener("error", () => {
      const box = element("div", "cell lost"), text = element("div", "why");
      text.append(element("b", "", "not reachable"), element("em", "", address));
      box.append(text);
      image.replaceWith(box);
    });
    image.addEventListener("click", zoom);
    image.src = address;
    stage.replaceChildren(image);
  }
  byId("zoom").disabled = address === null;
  const link = byId("original");
  link.hidden = address === null;
  if (address === null) link.removeAttribute("href"); else link.href = address;
  const [word, text] = reason(cell);
  const now = state(cell);
  const facts = [
    ["state", WORDS[now]],
    ...(now === "completed" ? [] : [["why", text || word]]),
    ...(now === "failed" && text ? [["kind", word]] : []),
    // The seed that was used stands below, also where the axis leaves it to chance.
    ...axes.flatMap((axis, number) => (axis.kind === "seed" ? [] : [[axis.name, labelOn(cell, number)]])),
    ...data.task.shared.filter(([name]) => name === "prompt"),
    ["seed", String(seed(cell))], ["size", size(cell)], ["cell", String(cell)], ["attempts", String(attempts(cell))],
  ];
  byId("viewer-facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
  showStars(cell);
  byId("previous").disabled = view.position === 0;
  byId("next").disabled = view.position === plan.length - 1;
}

function showStars(cell) {
  const value = rating(cell);
  const buttons = [1, 2, 3, 4, 5].map((number) => {
    const button = element("button", "", String(number));
    button.type = "button";
    button.setAttribute("aria-pressed", String(value === number));
    button.setAttribute("aria-label", `Rate ${number} of 5`);
    button.addEventListener("click", () => rateHere(value === number ? null : number));
    return button;
  });
  const held = [...byId("stars").children].indexOf(document.activeElement);
  byId("stars").replaceChildren(...buttons);
  byId("stars").hidden = state(cell) !== "completed";
  if (held >= 0) buttons[held].focus();
}

function rateHere(value) {
  const cell = plan.cell(view.position);
  if (!rate(cell, value)) { byId("here").textContent = `cell ${cell} has no picture to rate`; return; }
  rated(cell);
  if (viewer.open) showStars(cell);
}

function zoom() {
  const isWhole = stage.classList.toggle("whole");
  byId("zoom").setAttribute("aria-pressed", String(isWhole));
}

function step(by) {
  const position = view.position + by;
  if (position < 0 || position >= plan.length) return;
  go(position);
  show();
}

byId("zoom").addEventListener("click", zoom);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("close", () => box.focus());
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isZoomed = stage.classList.contains("whole");
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -plan.width, ArrowDown: plan.width };
  if (event.key in moves && !isZoomed) { event.preventDefault(); step(moves[event.key]); }
  else if (/^[0-5]$/.test(event.key)) rateHere(event.key === "0" ? null : Number(event.key));
  else if (event.key.toLowerCase() === "z") zoom();
});
