// The grid: rows and columns are made as they are scrolled in, and taken away when they are out of sight.
const GAP = 6;
const FLOW_MARGIN = 20;
// No browser draws an element of any height: above this, cells are made smaller.
const TALLEST = 15_000_000;
// Pixels of a single picture's side at most.
const LARGEST = 1_024;
const CAPTION = 25;
// A phone, upright or held sideways.
const isNarrow = matchMedia("(max-width: 720px), (max-height: 500px)");

const box = byId("grid");
const canvas = byId("canvas");
const view = { x: -1, y: -1, rest: [], size: 140, position: 0 };
let plan = null;
let rows = new Map();
let columns = new Map();
let heads = null;
let owed = new Set();
let lastTop = 0;
let isDrawing = false;
let settled = 0;

// The width of the widest word that stands on these axes, in a font.
const pen = document.createElement("canvas").getContext("2d");
function widest(on, font) {
  pen.font = font;
  const words = on.flatMap((axis) => axes[axis].values).flatMap((value) => value.split(/\s+/));
  return words.reduce((most, word) => Math.max(most, pen.measureText(word).width), 0);
}

// Room before the rows: no word of their labels is broken where there is room for it.
function headWidth(down) {
  const style = getComputedStyle(document.documentElement);
  const pixels = (name) => parseInt(style.getPropertyValue(name), 10);
  const family = getComputedStyle(box).fontFamily;
  const needed = Math.ceil(widest(down, `550 ${isNarrow.matches ? 12.5 : 14}px ${family}`)) + (isNarrow.matches ? 20 : 34);
  const width = Math.max(pixels("--head-least"), Math.min(pixels("--head-most"), needed));
  document.documentElement.style.setProperty("--head", `${width}px`);
  return width;
}

// Columns narrower than a word of their labels have smaller letters.
function columnLetters() {
  const [usual, least] = [12.5, 9];
  const family = getComputedStyle(box).fontFamily;
  const needed = view.x === -1 ? 0 : widest([view.x], `550 ${usual}px ${family}`) + 1;
  return Math.max(least, Math.min(usual, usual * (plan.pitch - 2) / needed));
}

// Which axes make the columns and which the rows: an axis that shows all its values and is no column is nested in the rows.
// Without rows the pictures flow, as many in a line as there is room for.
function makePlan() {
  const all = axes.map((_, axis) => axis).filter((axis) => axis !== view.x && axis !== view.y && view.rest[axis] === -1);
  const down = view.y === -1 ? all : [view.y, ...all];
  const isFlow = view.y === -1;
  const across = view.x === -1 ? [] : [view.x];
  const along = isFlow ? [...down, ...across] : down;
  const fixed = axes.reduce((sum, axis, number) =>
    ([...down, ...across].includes(number) ? sum : sum + (view.rest[number] ?? 0) * axis.stride), 0);
  const lengths = along.map((axis) => axes[axis].values.length);
  const count = lengths.reduce((product, length) => product * length, 1);
  // Kept with the plan: it still says what stands where when another column is chosen already.
  const [wide, stride] = view.x === -1 ? [1, 0] : [axes[view.x].values.length, axes[view.x].stride];
  const offset = (ordinal) => {
    let rest = ordinal, sum = fixed;
    for (let at = along.length - 1; at >= 0; at -= 1) {
      sum += (rest % lengths[at]) * axes[along[at]].stride;
      rest = Math.floor(rest / lengths[at]);
    }
    return sum;
  };
  const head = isFlow ? 0 : headWidth(down);
  const room = box.clientWidth - 2 * FLOW_MARGIN + GAP;
  const flowWide = Math.max(1, Math.floor(room / (view.size + GAP)));
  const width = isFlow ? Math.min(flowWide, count) : wide;
  const height = isFlow ? Math.ceil(count / width) : count;
  const pitch = Math.max(24, Math.min(view.size + GAP, Math.floor(TALLEST / height)));
  return {
    isFlow, down, width, height, pitch, head, top: isFlow ? GAP : 44,
    left: isFlow ? (axes.length ? FLOW_MARGIN : Math.max(FLOW_MARGIN, Math.floor((box.clientWidth - view.size) / 2))) : head + GAP, length: isFlow ? count : count * wide,
    cell: (position) => (isFlow ? offset(position) : offset(Math.floor(position / wide)) + (position % wide) * stride),
    tall: pitch + (isFlow && axes.length ? CAPTION : 0),
    // What a caption names: the axes that are not held.
    named: [...down, ...across].sort((one, other) => one - other),
  };
}

// Draws anew: another choice of axes, another size of the cells or of the window.
function rebuild() {
  const before = plan && plan.length ? plan.cell(view.position) : 0;
  plan = makePlan();
  view.position = positionOf(before);
  rows = new Map(); columns = new Map(); owed = new Set(); heads = null;
  canvas.replaceChildren();
  canvas.style.height = `${plan.top + plan.height * plan.tall + GAP}px`;
  canvas.style.width = plan.isFlow ? "100%" : `${plan.left + plan.width * plan.pitch}px`;
  box.classList.toggle("small", plan.pitch < 118);
  box.classList.toggle("flow", plan.isFlow && axes.length > 0);
  box.setAttribute("aria-rowcount", plan.height + (plan.isFlow ? 0 : 1));
  box.setAttribute("aria-colcount", plan.width + (plan.isFlow ? 0 : 1));
  if (!plan.isFlow) {
    heads = element("div", "heads");
    heads.setAttribute("role", "row");
    heads.style.fontSize = `${columnLetters()}px`;
    const corner = element("div", "corner");
    corner.setAttribute("role", "columnheader");
    const named = [["→", view.x === -1 ? [] : [view.x]], ["↓", plan.down]].map(([arrow, on]) => {
      const line = element("span");
      if (on.length) line.append(`${arrow} `, ...joined(on.map((axis) => axes[axis].name), ", "));
      return line;
    });
    corner.append(...named);
    heads.append(corner);
    canvas.append(heads);
  }
  draw();
}

// Where a cell stands in the new plan: at its own row and column, whatever the values at which other axes are held.
function positionOf(cell) {
  const on = (axis) => (axis === -1 ? 0 : indexOn(cell, axis));
  const along = plan.isFlow && view.x !== -1 ? [...plan.down, view.x] : plan.down;
  const row = along.reduce((sum, axis) => sum * axes[axis].values.length + on(axis), 0);
  return plan.isFlow ? row : row * plan.width + on(view.x);
}

function soon() {
  if (!isDrawing) { isDrawing = true; requestAnimationFrame(() => { isDrawing = false; draw(); }); }
}

function draw() {
  const { scrollTop, scrollLeft, clientHeight, clientWidth } = box;
  // Whoever rushes past wants no picture of what flies by.
  const isHasty = Math.abs(scrollTop - lastTop) > clientHeight;
  lastTop = scrollTop;
  const firstRow = Math.max(0, Math.floor((scrollTop - plan.top) / plan.tall) - 1);
  const lastRow = Math.min(plan.height - 1, Math.ceil((scrollTop + clientHeight) / plan.tall) + 1);
  const firstColumn = plan.isFlow ? 0 : Math.max(0, Math.floor(scrollLeft / plan.pitch) - 1);
  const lastColumn = plan.isFlow ? plan.width - 1 : Math.min(plan.width - 1, Math.ceil((scrollLeft + clientWidth - plan.head) / plan.pitch) + 1);
  keep(rows, firstRow, lastRow, (row) => forget(row.cells.values(), row.element), makeRow);
  for (const [number, row] of rows) {
    keep(row.cells, firstColumn, lastColumn, (cell) => forget([cell], cell), (column) => {
      const position = number * plan.width + column;
      return position < plan.length ? makeCell(position, column, row.element, isHasty) : null;
    });
  }
  if (heads) keep(columns, firstColumn, lastColumn, (head) => head.remove(), makeColumn);
  markHere();
  clearTimeout(settled);
  settled = setTimeout(() => { for (const cell of owed) showPicture(cell); owed = new Set(); }, isHasty ? 120 : 0);
}

// Takes away what is outside of a range and makes what is missing in it.
function keep(there, first, last, drop, make) {
  for (const [number, what] of there) if (number < first || number > last) { if (what) drop(what); there.delete(number); }
  for (let number = first; number <= last; number += 1) if (!there.has(number)) there.set(number, make(number));
}

function forget(cells, whole) {
  // A download of what is out of sight is ended.
  for (const cell of cells) { if (!cell) continue; owed.delete(cell); cell.querySelector("img")?.removeAttribute("src"); }
  whole.remove();
}

function makeRow(number) {
  const row = element("div", "row");
  row.setAttribute("role", "row");
  row.setAttribute("aria-rowindex", number + (plan.isFlow ? 1 : 2));
  row.style.top = `${plan.top + number * plan.tall}px`;
  row.style.height = `${plan.tall}px`;
  row.style.width = "100%";
  if (!plan.isFlow) {
    const head = element("div", "row-head");
    head.setAttribute("role", "rowheader");
    head.setAttribute("aria-colindex", 1);
    const cell = plan.cell(number * plan.width);
    const texts = plan.down.map((axis) => labelOn(cell, axis));
    head.title = joinedText(texts, " · ");
    const label = element("span", "", texts[0] ?? "");
    // As many whole lines as the row has room for.
    label.style.webkitLineClamp = Math.max(1, Math.floor((plan.pitch - 14 - 17 * (texts.length - 1)) / 17.5));
    head.append(label, ...texts.slice(1).map((text) => element("small", "", text)));
    row.append(head);
  }
  canvas.append(row);
  return { element: row, cells: new Map() };
}

function makeColumn(number) {
  const column = element("div", "column");
  const text = view.x === -1 ? "" : axes[view.x].values[number];
  column.setAttribute("role", "columnheader");
  column.setAttribute("aria-colindex", number + 2);
  column.title = text;
  column.style.left = `${plan.left + number * plan.pitch - GAP / 2}px`;
  column.style.width = `${plan.pitch}px`;
  column.append(element("span", "", text));
  heads.append(column);
  return column;
}

function makeCell(position, column, row, isHasty) {
  const cell = plan.cell(position);
  const made = element("div", `cell ${state(cell)}`);
  made.id = `cell-${cell}`;
  made.dataset.position = position;
  made.setAttribute("role", "gridcell");
  made.setAttribute("aria-colindex", column + (plan.isFlow ? 1 : 2));
  made.style.left = `${plan.left + column * plan.pitch}px`;
  made.style.width = `${plan.pitch - GAP}px`;
  made.style.height = `${plan.tall - GAP}px`;
  if (picture(cell) === null) made.append(why(cell)); else if (isHasty) owed.add(made); else showPicture(made, cell);
  if (plan.isFlow && axes.length) {
    const texts = plan.named.map((axis) => labelOn(cell, axis));
    const caption = element("span", "caption");
    caption.append(...joined(texts, " · "));
    caption.title = joinedText(texts, " · ");
    made.append(unsaid(caption));
  }
  drawRating(made, cell);
  row.append(made);
  return made;
}

function why(cell) {
  const box = element("div", "why");
  const [word, text] = reason(cell);
  box.append(element("b", "", word));
  if (text) box.append(element("em", "", text));
  box.title = text;
  return unsaid(box);
}

// What a cell shows is said by a text that nobody sees: its picture and its badges would not make a sentence.
function unsaid(part) {
  part.setAttribute("aria-hidden", "true");
  return part;
}

function showPicture(made, known) {
  const cell = known ?? plan.cell(Number(made.dataset.position));
  const image = new Image();
  image.alt = "";
  image.decoding = "async";
  image.addEventListener("error", () => {
    if (!image.hasAttribute("src")) return;
    made.classList.add("lost");
    const lost = element("div", "why");
    lost.append(element("b", "", "not reachable"), element("em", "", picture(cell)));
    image.replaceWith(unsaid(lost));
  });
  image.src = picture(cell);
  made.prepend(image);
}

function drawRating(made, cell) {
  const value = rating(cell);
  made.querySelector(".rated")?.remove();
  if (value !== null) made.append(unsaid(element("span", "rated", `★ ${value}`)));
  const said = made.querySelector(".unseen") ?? made.appendChild(element("span", "unseen"));
  said.textContent = spoken(cell);
}

const spoken = (cell) => told(cell).join(", ");

function told(cell) {
  const value = rating(cell);
  const what = state(cell) === "failed" ? `failed, ${reason(cell).filter(Boolean).join(": ")}` : WORDS[state(cell)];
  return [`cell ${cell}`, ...labels(cell), what, ...(value === null ? [] : [`rated ${value}`])];
}

// The cell that keys act on.
function markHere() {
  canvas.querySelector(".here")?.classList.remove("here");
  const cell = plan.length ? plan.cell(view.position) : -1;
  const made = document.getElementById(`cell-${cell}`);
  if (made) { made.classList.add("here"); box.setAttribute("aria-activedescendant", made.id); } else box.removeAttribute("aria-activedescendant");
}

function go(position) {
  view.position = Math.max(0, Math.min(plan.length - 1, position));
  const row = Math.floor(view.position / plan.width), column = view.position % plan.width;
  const top = row * plan.tall, left = column * plan.pitch;
  const high = box.clientHeight - plan.top, broad = box.clientWidth - plan.left;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + plan.tall > box.scrollTop + high) box.scrollTop = top + plan.tall - high + GAP;
  if (!plan.isFlow && left < box.scrollLeft) box.scrollLeft = left;
  else if (!plan.isFlow && left + plan.pitch > box.scrollLeft + broad) box.scrollLeft = left + plan.pitch - broad;
  draw();
  sayHere();
}

function sayHere() {
  const cell = plan.cell(view.position);
  byId("here").replaceChildren(...joined([...told(cell), `seed ${seed(cell)}`], ", "));
}

// After a rating, wherever it was made.
function rated(cell) {
  const made = document.getElementById(`cell-${cell}`);
  if (made) drawRating(made, cell);
  sayHere();
  sayCount();
}

function sayCount() {
  const count = changed.size;
  byId("export").disabled = count === 0;
  byId("export").textContent = count === 0 ? "Export ratings" : `Export ${grouped(count)} rating${count === 1 ? "" : "s"}`;
}
