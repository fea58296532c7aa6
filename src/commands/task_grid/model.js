// The task: its axes, its cells, and what was rated here. A cell's place in the grid is its ordinal: the last axis varies
// fastest, and copies are neighbours, so that no index has to be stored.
const data = JSON.parse(document.getElementById("data").textContent);
const STATES = { c: "completed", f: "failed", x: "cancelled", r: "processing", p: "pending" };
const WORDS = { completed: "completed", failed: "failed", cancelled: "cancelled", processing: "in progress", pending: "waiting" };

const axes = data.axes.map((axis) => ({ name: axis.name || axis.kind, kind: axis.kind, values: axis.values }));
if (data.copies > 1) {
  axes.push({ name: "copy", kind: "copy", values: Array.from({ length: data.copies }, (_, copy) => `copy ${copy + 1}`) });
}
const total = data.states.length;
for (let stride = 1, number = axes.length - 1; number >= 0; number -= 1) {
  axes[number].stride = stride;
  stride *= axes[number].values.length;
}

const state = (cell) => STATES[data.states[cell]];
const indexOn = (cell, axis) => Math.floor(cell / axes[axis].stride) % axes[axis].values.length;
const labelOn = (cell, axis) => axes[axis].values[indexOn(cell, axis)];
const labels = (cell) => axes.map((_, axis) => labelOn(cell, axis));
const seed = (cell) => data.seeds[cell];
const size = (cell) => data.sizes[data.size.length ? data.size[cell] : 0];
const attempts = (cell) => data.attempts[cell] ?? 1;

function picture(cell) {
  const name = data.names[cell];
  return name === null || name === undefined ? null : data.places[data.place[cell] ?? 0] + name;
}

// Why there is no picture, or why its cell waits: a short word and the rest.
function reason(cell) {
  const [kind, text] = data.reasons[data.reason[cell]] ?? [null, null];
  const now = state(cell);
  if (kind) return [kind.replaceAll("_", " "), text ?? ""];
  if (now === "completed") return ["no address", text ?? "the picture's address cannot be shown"];
  return [WORDS[now], text ?? ""];
}

// What was rated here and is not exported yet, by cell; null takes a rating away.
const changed = new Map();
const key = `imagemill ratings ${data.task.id}`;
// A browser may forbid to store: then ratings last as long as the page.
const stored = (act) => { try { return act(); } catch { return null; } };
function readStored() {
  changed.clear();
  for (const [cell, value] of Object.entries(stored(() => JSON.parse(localStorage.getItem(key))) ?? {})) {
    const isRating = value === null || (Number.isInteger(value) && value >= 1 && value <= 5);
    if (isRating && data.states[cell] === "c" && value !== (data.ratings[cell] ?? null)) changed.set(Number(cell), value);
  }
}
readStored();

const rating = (cell) => (changed.has(cell) ? changed.get(cell) : data.ratings[cell] ?? null);

function rate(cell, value) {
  if (state(cell) !== "completed") return false;
  if (value === (data.ratings[cell] ?? null)) changed.delete(cell); else changed.set(cell, value);
  stored(() => localStorage.setItem(key, JSON.stringify(Object.fromEntries(changed))));
  return true;
}

// What `imagemill task rate --from FILE` reads.
function exported() {
  const ratings = [...changed].sort((one, other) => one[0] - other[0]).map(([cell, value]) => ({ cell, rating: value }));
  return { task_id: data.task.id, ratings };
}

function nextFailed(from, order) {
  for (let step = 1; step <= order.length; step += 1) {
    const position = (from + step) % order.length;
    if (data.states[order.cell(position)] === "f") return position;
  }
  return -1;
}

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
// Several labels as one line: each has its own direction, and none moves what stands beside it.
const joined = (parts, between) => parts.flatMap((part, number) => [...(number ? [between] : []), element("bdi", "", part)]);
const joinedText = (parts, between) => parts.map((part) => `\u2068${part}\u2069`).join(between);
const byId = (id) => document.getElementById(id);
const grouped = (number) => number.toLocaleString("en");
