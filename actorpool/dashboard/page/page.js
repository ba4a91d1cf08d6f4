// The page: what is known, what a person has chosen to see of it, and when which part is drawn again.
import { ask, follow } from "/page/live.js";
import { detail, eventLine, make, needs, poolRow, tree } from "/page/view.js";

const KINDS = ["pool", "worker", "call", "breaker", "supervisor"];
const KEPT = 1000, SHOWN = 200;
const at = (id) => document.getElementById(id);
const known = { state: null, samples: {}, tree: null, events: [], detail: null };
const chosen = { sort: "need", search: "", kinds: new Set(KINDS), paused: false, pool: null, moment: {} };
const twigs = { pids: null, marks: new Map(), open: new Map(), again: () => drawTree() };

for (const id of ["tools", "attention", "tree-section", "events-section"]) at(id).hidden = false;

// Keep the focus where it is when a part is drawn anew; what is being clicked on stays for a moment.
let pressedAt = -Infinity;
addEventListener("pointerdown", () => { pressedAt = performance.now(); }, true);
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { pressedAt = -Infinity; }, true);
const pressed = () => performance.now() - pressedAt < 700;
function redraw(place, children) {
  if (pressed()) return;
  const active = document.activeElement;
  const key = place.contains(active) && ["data-pool", "data-path", "aria-label"].map((name) => [name, active.getAttribute(name)]).find(([, value]) => value);
  place.replaceChildren(...children);
  if (key) [...place.querySelectorAll(`[${key[0]}]`)].find((each) => each.getAttribute(key[0]) === key[1])?.focus({ preventScroll: true });
}

function matches(text) {
  return text.toLowerCase().includes(chosen.search);
}

let needsShown = "";
function drawState() {
  const { state } = known;
  if (!state) return;
  const count = state.attention.length;
  document.title = `${count ? `(${count}) ` : ""}${state.node}`;
  at("node").textContent = state.node;
  at("facts").textContent = `on ${state.host}, ${state.pools.length} pool${state.pools.length === 1 ? "" : "s"}`;
  const restarts = state.pools.reduce((sum, pool) => sum + pool.restarts, 0);
  const quiet = `Nothing needs attention: no caller waits${restarts ? `, ${restarts} worker restart${restarts > 1 ? "s" : ""} since the pools started` : ""}.`;
  const told = state.attention.map((need) => `${need.pool}${need.commands}`).join() || quiet;
  if (told !== needsShown || !at("needs").contains(document.activeElement)) redraw(at("needs"), needs(state.attention, quiet));
  needsShown = told;
  drawPools();
}

function ordered(pools) {
  const key = chosen.sort;
  const named = (a, b) => a.name.localeCompare(b.name);
  return [...pools].sort((a, b) => (key === "name" ? named(a, b) : b[key] - a[key] || named(a, b)));
}

let detailRow = null;
function drawPools() {
  const body = at("pool-table").tBodies[0];
  const columns = [...at("pool-table").tHead.rows[0].cells].filter((cell) => getComputedStyle(cell).display !== "none").length;
  const rows = [];
  for (const pool of ordered(known.state.pools).filter((pool) => matches(`${pool.name} ${pool.state}`))) {
    const open = chosen.pool === pool.name;
    rows.push(poolRow(pool, known.samples[pool.name], open, () => choose(open ? null : pool.name)));
    if (open) {
      detailRow ??= make("tr", { class: "detail" }, make("td", { colspan: columns }, make("p", { class: "soft" }, "Asking the pool.")));
      detailRow.cells[0].colSpan = columns;
      rows.push(detailRow);
    }
  }
  if (!rows.length) rows.push(make("tr", {}, make("td", { colspan: columns, class: "soft" }, known.state.pools.length ? "No pool matches." : "This node has no pools.")));
  const kept = detailRow?.contains(document.activeElement) ? document.activeElement : null;
  redraw(body, rows);
  kept?.focus({ preventScroll: true });
}

function choose(name) {
  if (name !== chosen.pool) { known.detail = null; detailRow = null; chosen.moment = {}; }
  chosen.pool = name;
  history.replaceState(null, "", name ? `#pool=${encodeURIComponent(name)}` : location.pathname);
  if (known.state) drawPools();
  if (name) loadDetail();
}

async function loadDetail() {
  const name = chosen.pool;
  if (!name || document.hidden) return;
  let parts;
  try {
    parts = detail(await ask(`/api/pools/${encodeURIComponent(name)}`), chosen.moment);
  } catch {
    parts = [make("p", { class: "soft" }, "This pool does not answer, or is gone.")];
  }
  if (chosen.pool !== name || !detailRow) return;
  const opened = [...detailRow.querySelectorAll("details")].map((each) => each.open);
  redraw(detailRow.cells[0], parts);
  [...detailRow.querySelectorAll("details")].forEach((each, index) => { each.open = opened[index] ?? false; });
}

function drawTree() {
  if (known.tree) redraw(at("tree"), [tree(known.tree, twigs)]);
}

function drawEvents() {
  if (chosen.paused || pressed()) return;
  const wanted = known.events.filter((event) => event.gap || (chosen.kinds.has(event.name.split(".")[0]) && matches(`${event.name} ${event.pool ?? ""} ${JSON.stringify(event.metadata)}`)));
  const opened = new Set([...at("events").querySelectorAll("details[open]")].map((each) => each.dataset.number));
  const lines = wanted.slice(-SHOWN).reverse().map((event) => {
    const line = eventLine(event);
    const box = line.querySelector("details");
    if (box) { box.dataset.number = event.number; box.open = opened.has(String(event.number)); }
    return line;
  });
  at("events").firstElementChild.replaceChildren(...(lines.length ? lines : [make("li", { class: "soft" }, known.events.length ? "No event matches." : "No event yet.")]));
}

let eventsDue = 0;
function show(kind, data) {
  if (kind === "state") { known.state = data; drawState(); }
  else if (kind === "samples") { known.samples = data; if (known.state) drawPools(); }
  else if (kind === "tree") { known.tree = data; drawTree(); }
  else {
    known.events.push(kind === "gap" ? { gap: `${data.dropped} messages were dropped, because this page was too slow` } : data);
    known.events.splice(0, known.events.length - KEPT);
    eventsDue ||= requestAnimationFrame(() => { eventsDue = 0; drawEvents(); });
  }
}

function tell(live, since) {
  document.body.classList.toggle("stale", !live);
  const words = live ? "live" : since ? `stale since ${new Date(since).toLocaleTimeString("en-GB")}` : "no answer from the node yet";
  if (at("live").textContent !== words) at("live").textContent = words;
}

// -- what a person does ------------------------------------------------------------------------------------------

for (const head of at("pool-table").tHead.rows[0].cells) {
  const button = make("button", { type: "button", onclick: () => {
    chosen.sort = head.dataset.sort;
    for (const each of head.parentNode.cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", chosen.sort === "name" ? "ascending" : "descending");
    if (known.state) drawPools();
  } }, head.textContent);
  head.replaceChildren(button);
}
at("search").addEventListener("input", () => {
  chosen.search = at("search").value.trim().toLowerCase();
  if (known.state) drawPools();
  drawEvents();
});
for (const kind of KINDS) {
  const chip = make("button", { type: "button", "aria-pressed": "true", onclick: () => {
    const on = !chosen.kinds.has(kind);
    on ? chosen.kinds.add(kind) : chosen.kinds.delete(kind);
    chip.setAttribute("aria-pressed", String(on));
    drawEvents();
  } }, kind);
  at("chips").append(chip);
}
const pause = make("button", { type: "button", "aria-pressed": "false", onclick: () => {
  chosen.paused = !chosen.paused;
  pause.setAttribute("aria-pressed", String(chosen.paused));
  drawEvents();
} }, "pause");
at("chips").append(pause);
const theme = at("theme");
const dress = (name) => (name ? document.documentElement.setAttribute("data-theme", name) : document.documentElement.removeAttribute("data-theme"));
theme.value = localStorage.getItem("theme") ?? "";
dress(theme.value);
theme.addEventListener("change", () => { localStorage.setItem("theme", theme.value); dress(theme.value); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !chosen.pool) return;
  const name = chosen.pool;
  choose(null);
  document.querySelector(`[data-pool="${CSS.escape(name)}"]`)?.focus();
});
const addressed = () => {
  const found = /^#pool=(.+)$/.exec(location.hash);
  choose(found ? decodeURIComponent(found[1]) : null);
};
addEventListener("hashchange", addressed);
addressed();
setInterval(loadDetail, 5000);
setInterval(() => { if (twigs.marks.size) drawTree(); }, 5000);
drawEvents();
follow(show, tell);
