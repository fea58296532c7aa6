// The page around the grid: what the task is, which axes are shown, keys, themes, and the export of ratings.
function drawAbout() {
  const { task } = data;
  byId("name").textContent = task.name;
  byId("name").title = task.name;
  const parts = [["", task.status], ["", `${grouped(total)} cell${total === 1 ? "" : "s"}`], ["", `by ${task.owner}`],
    ["created", `created ${task.created_at}`], ["", `as of ${task.written_at}`]];
  byId("facts").append(...parts.map(([name, text]) => element("span", name, text)));
  const counts = {};
  for (const letter of data.states) counts[STATES[letter]] = (counts[STATES[letter]] ?? 0) + 1;
  const order = ["completed", "failed", "cancelled", "processing", "pending"].filter((name) => counts[name]);
  byId("bar").setAttribute("aria-label", order.map((name) => `${counts[name]} ${WORDS[name]}`).join(", "));
  byId("bar").append(...order.map((name) => {
    const part = element("i", `is-${name}`);
    part.style.flexGrow = counts[name];
    return part;
  }));
  byId("counts").append(...order.map((name) => {
    const item = element("li", `is-${name}`);
    item.append(element("b", "", grouped(counts[name])), ` ${WORDS[name]}`);
    return item;
  }));
  byId("next-failed").hidden = !counts.failed;
  if (data.task.shared.length) {
    byId("constants").hidden = false;
    byId("shared").append(...data.task.shared.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
  }
}

function option(value, text) {
  const made = element("option", "", text);
  made.value = value;
  return made;
}

// The longest axis goes down, the next one across; the others stand at their first value.
function chooseAxes() {
  const byLength = axes.map((_, axis) => axis).sort((one, other) => axes[other].values.length - axes[one].values.length || one - other);
  view.rest = axes.map(() => 0);
  [view.y, view.x] = axes.length === 1 ? [-1, 0] : [byLength[0] ?? -1, byLength[1] ?? -1];
  for (const [id, none] of [["axis-x", "none"], ["axis-y", "none: let them flow"]]) {
    byId(id).append(option(-1, none), ...axes.map((axis, number) => option(number, `${axis.name} (${axis.values.length})`)));
    byId(id).addEventListener("change", (event) => choose(id === "axis-x" ? "x" : "y", Number(event.target.value)));
  }
  byId("swap").addEventListener("click", () => { [view.x, view.y] = [view.y, view.x]; drawChoice(); showChoice(); });
}

function choose(which, axis) {
  const other = which === "x" ? "y" : "x";
  // An axis stands in one place: the two change places.
  if (axis !== -1 && view[other] === axis) view[other] = view[which];
  // What flows is the whole of an axis.
  if (which === "y" && axis === -1 && view.y !== -1) view.rest[view.y] = -1;
  view[which] = axis;
  drawChoice();
  showChoice();
}

// What is shown then is marked, in sight and named: keys act on it.
function showChoice() {
  rebuild();
  go(view.position);
}

function drawChoice() {
  byId("axis-x").value = view.x;
  byId("axis-y").value = view.y;
  byId("rest").replaceChildren(...axes.flatMap((axis, number) => {
    if (number === view.x || number === view.y) return [];
    const label = element("label", "", axis.name);
    const select = element("select");
    select.append(option(-1, `all ${axis.values.length}`), ...axis.values.map((value, index) => option(index, value)));
    select.value = view.rest[number];
    select.addEventListener("change", () => { view.rest[number] = Number(select.value); showChoice(); });
    label.append(select);
    return [label];
  }));
}

// A single picture may be as large as there is room for. Until somebody chooses a size, it follows the window.
let isSized = false;
function fit() {
  if (isSized) return;
  const room = Math.min(LARGEST, box.clientHeight - 24, box.clientWidth - 2 * FLOW_MARGIN);
  view.size = total === 1 ? Math.max(64, room) : isNarrow.matches ? 96 : 140;
  byId("size").value = view.size;
}

function resize(pixels) {
  isSized = true;
  view.size = Math.max(64, Math.min(Number(byId("size").max), pixels));
  byId("size").value = view.size;
  showChoice();
}

function drawTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
  stored(() => localStorage.setItem("imagemill theme", theme));
}

function jumpToFailed() {
  const position = nextFailed(view.position, plan);
  if (position >= 0) go(position); else byId("here").textContent = "no cell of what is shown has failed";
}

function download() {
  const address = URL.createObjectURL(new Blob([`${JSON.stringify(exported(), null, 1)}\n`], { type: "application/json" }));
  const link = element("a");
  link.href = address;
  link.download = `ratings-${data.task.id}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

box.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !plan.length) return;
  const row = Math.floor(view.position / plan.width) * plan.width;
  const page = Math.max(1, Math.floor(box.clientHeight / plan.tall) - 1) * plan.width;
  const moves = {
    ArrowLeft: view.position - 1, ArrowRight: view.position + 1, ArrowUp: view.position - plan.width, ArrowDown: view.position + plan.width,
    Home: row, End: row + plan.width - 1, PageUp: view.position - page, PageDown: view.position + page,
  };
  const isInside = (position) => position >= 0 && position < plan.length;
  if (event.key in moves) {
    event.preventDefault();
    const position = moves[event.key];
    const column = view.position % plan.width;
    if (isInside(position)) go(position); else if (event.key === "PageUp") go(column); else if (event.key === "PageDown") go((plan.height - 1) * plan.width + column);
  } else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(view.position); }
  else if (/^[0-5]$/.test(event.key)) rateHere(event.key === "0" ? null : Number(event.key));
  else if (event.key === "f" || event.key === "F") jumpToFailed();
  else if (event.key === "+" || event.key === "=") resize(view.size + 24);
  else if (event.key === "-") resize(view.size - 24);
});
box.addEventListener("click", (event) => {
  const made = event.target.closest(".cell");
  if (made) open(Number(made.dataset.position));
});
box.addEventListener("scroll", soon, { passive: true });
new ResizeObserver(() => { if (plan && plan.isFlow) { fit(); rebuild(); } else if (plan) soon(); }).observe(box);

byId("size").addEventListener("input", (event) => resize(Number(event.target.value)));
byId("next-failed").addEventListener("click", () => { jumpToFailed(); box.focus(); });
byId("export").addEventListener("click", download);
byId("theme").addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  drawTheme(order[(order.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % order.length]);
});
// Rated in another window of this page, or in this one before it was loaded again: told when the browser has stored it.
addEventListener("storage", (event) => {
  if (event.key !== key) return;
  readStored();
  for (const made of document.querySelectorAll(".cell")) drawRating(made, plan.cell(Number(made.dataset.position)));
  if (viewer.open) showStars(plan.cell(view.position));
  sayCount();
});
byId("controls").addEventListener("submit", (event) => event.preventDefault());

const panel = () => { byId("panel").open = !isNarrow.matches; fit(); rebuild(); };
const theme = stored(() => localStorage.getItem("imagemill theme"));
if (theme === "light" || theme === "dark") drawTheme(theme);
drawAbout();
chooseAxes();
drawChoice();
for (const id of ["axis-x", "axis-y"]) byId(id).parentElement.hidden = axes.length === 0;
byId("swap").hidden = axes.length === 0;
if (axes.length === 0) byId("panel-name").textContent = "View";
if (total === 1) byId("size").max = LARGEST;
isNarrow.addEventListener("change", panel);
panel();
rated(plan.cell(view.position));
byId("here").textContent = "";
