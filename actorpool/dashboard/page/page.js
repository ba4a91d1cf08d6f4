// The page: what is known, what a person has chosen to see of it, and when which part is drawn again.
import { make, memo, patch, plural, seconds } from "/page/dom.js";
import { eventLine, sentence } from "/page/events.js";
import { ask, follow } from "/page/live.js";
import { detail, needs, poolRow } from "/page/pools.js";
import { drawTree, workersOf } from "/page/tree.js";

const KINDS = ["pool", "worker", "call", "breaker", "supervisor", "host"];
const KEPT = 1000,
  SHOWN = 200,
  HOUR = 3600;
const SPOKEN_EVERY = 10000;
const at = (id) => document.getElementById(id);
const known = { state: null, samples: {}, tree: null, events: [], detail: null };
const chosen = {
  sort: "need",
  search: "",
  kinds: new Set(KINDS),
  paused: false,
  pool: null,
  moment: {},
  twigs: new Map(),
};

for (const id of ["tools", "attention", "tree-section", "events-section"]) at(id).hidden = false;

// What is being clicked on stays for a moment.
let pressedAt = -Infinity;
addEventListener(
  "pointerdown",
  () => {
    pressedAt = performance.now();
  },
  true,
);
for (const end of ["pointerup", "pointercancel"])
  addEventListener(
    end,
    () => {
      pressedAt = -Infinity;
    },
    true,
  );
const pressed = () => performance.now() - pressedAt < 700;

const matches = (text) => text.toLowerCase().includes(chosen.search);

function drawState() {
  const { state, tree } = known;
  if (!state || pressed()) return;
  const count = state.attention.length;
  document.title = `${count ? `(${count}) ` : ""}${state.node}`;
  at("node").textContent = state.node;
  const began = tree?.since ?? tree?.children[0]?.since;
  const workers = state.pools.reduce((sum, pool) => sum + pool.total, 0);
  at("facts").textContent = [
    `on ${state.host}`,
    state.version ? `actorpool ${state.version}` : null,
    began ? `up ${seconds(Date.now() / 1000 - began)}` : null,
    plural(state.pools.length, "pool"),
    plural(workers, "worker"),
  ]
    .filter(Boolean)
    .join(" · ");
  at("attention").classList.toggle("calm", !count);
  const last = known.events.findLast(
    (event) => event.name === "worker.restarted" || event.name === "supervisor.restarted",
  );
  at("quiet").textContent = count
    ? ""
    : `Nothing needs attention. No caller waits; ${last ? `the last restart was ${seconds(Date.now() / 1000 - last.time)} ago` : "nothing was restarted lately"}.`;
  patch(at("needs"), needs(state.attention));
  speak(
    count
      ? `${plural(count, "thing")} need${count === 1 ? "s" : ""} attention: ${state.attention.map((need) => need.pool ?? need.text).join(", ")}`
      : "Nothing needs attention",
  );
  drawPools();
}

let spokenAt = -Infinity;
function speak(words) {
  if (at("told").textContent === words || performance.now() - spokenAt < SPOKEN_EVERY) return;
  spokenAt = performance.now();
  at("told").textContent = words;
}

function ordered(pools) {
  const key = chosen.sort;
  const named = (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true });
  return [...pools].sort((a, b) => (key === "name" ? named(a, b) : (b[key] ?? -1) - (a[key] ?? -1) || named(a, b)));
}

function restartsLately() {
  const found = new Map();
  const since = Date.now() / 1000 - HOUR;
  for (const event of known.events)
    if (event.name === "worker.restarted" && event.time > since)
      found.set(event.pool, (found.get(event.pool) ?? 0) + 1);
  return found;
}

const rowsDrawn = memo();
const detailRow = make("tr", { class: "detail-row", "data-key": " detail" }, make("td", {}));
function drawPools() {
  if (!known.state) return;
  const body = at("pool-table").tBodies[0];
  const columns = [...at("pool-table").tHead.rows[0].cells].filter(
    (cell) => getComputedStyle(cell).display !== "none",
  ).length;
  const lately = restartsLately();
  const rows = [];
  rowsDrawn.begin();
  for (const pool of ordered(known.state.pools).filter((pool) => matches(`${pool.name} ${pool.state}`))) {
    const open = chosen.pool === pool.name;
    const samples = known.samples[pool.name];
    const restarts = lately.get(pool.name) ?? 0;
    rows.push(
      rowsDrawn.draw(pool.name, [{ ...pool, since: 0, oldest_lease: 0 }, samples?.at(-1)?.time, restarts, open], () =>
        poolRow(pool, samples, restarts, open, () => choose(chosen.pool === pool.name ? null : pool.name)),
      ),
    );
    if (open) {
      detailRow.cells[0].colSpan = columns;
      rows.push(detailRow);
    }
  }
  if (!rows.length)
    rows.push(
      make(
        "tr",
        {},
        make(
          "td",
          { colspan: columns, class: "soft" },
          known.state.pools.length ? "No pool matches." : "This node has no pools.",
        ),
      ),
    );
  patch(body, rows);
  rowsDrawn.settle(body);
}

function drawDetail() {
  const place = detailRow.cells[0];
  if (!known.detail) patch(place, [make("p", { class: "soft" }, "Asking the pool…")]);
  else if (known.detail.error) patch(place, [make("p", { class: "soft" }, known.detail.error)]);
  else patch(place, detail(known.detail, workersOf(known.tree, chosen.pool), chosen.moment, drawDetail));
}

function choose(name) {
  if (name !== chosen.pool) {
    known.detail = null;
    chosen.moment = {};
  }
  chosen.pool = name;
  history.replaceState(null, "", name ? `#pool=${encodeURIComponent(name)}` : location.pathname);
  drawDetail();
  drawPools();
  loadDetail();
}

async function loadDetail() {
  const name = chosen.pool;
  if (!name || document.hidden) return;
  let told;
  try {
    told = await ask(`/api/pools/${encodeURIComponent(name)}`);
  } catch (error) {
    const gone = error.status === 404;
    if (known.detail && !gone) return; // what was told last stays, as does the rest of the page
    told = { error: gone ? "This pool is gone." : "This pool does not answer." };
  }
  if (chosen.pool !== name || pressed()) return;
  known.detail = told;
  drawDetail();
}

let marked = false;
function redrawTree() {
  if (known.tree && !pressed()) marked = drawTree(at("tree"), known.tree, chosen.twigs, redrawTree);
}

const linesDrawn = memo();
function drawEvents() {
  if (chosen.paused || pressed()) return;
  const list = at("events").firstElementChild;
  const wanted = known.events.filter(
    (event) =>
      event.gap ||
      ((chosen.kinds.has(event.name.split(".")[0]) || !KINDS.includes(event.name.split(".")[0])) &&
        (!chosen.search || matches(`${event.name} ${event.pool ?? ""} ${sentence(event)}`))),
  );
  linesDrawn.begin();
  const lines = wanted
    .slice(-SHOWN)
    .reverse()
    .map((event) => {
      const key = String(event.number ?? `gap ${event.after}`);
      return linesDrawn.draw(key, key, () => eventLine(event, key));
    });
  patch(
    list,
    lines.length ? lines : [make("li", { class: "soft" }, known.events.length ? "No event matches." : "No event yet.")],
  );
  linesDrawn.settle(list);
}

let eventsDue = 0;
function show(kind, data) {
  if (kind === "down") {
    at("problem").textContent = data.error;
    return;
  }
  if (kind === "state") {
    at("problem").textContent = "";
    known.state = data;
    drawState();
  } else if (kind === "samples") {
    known.samples = data;
    drawPools();
  } else if (kind === "tree") {
    known.tree = data;
    redrawTree();
  } else {
    if (kind === "anew") known.events = [];
    else
      known.events.push(
        kind === "gap"
          ? {
              gap: `${plural(data.dropped, "message")} dropped here: this page was too slow`,
              name: "",
              after: known.events.at(-1)?.number,
            }
          : data,
      );
    known.events.splice(0, known.events.length - KEPT);
    eventsDue ||= requestAnimationFrame(() => {
      eventsDue = 0;
      drawEvents();
    });
  }
}

function tell(live, since) {
  document.body.classList.toggle("stale", !live);
  const words = live
    ? "live"
    : since
      ? `stale since ${new Date(since).toLocaleTimeString("en-GB")}`
      : "no answer from the node yet";
  if (at("live").textContent !== words) at("live").textContent = words;
}

// -- what a person does ------------------------------------------------------------------------------------------

for (const head of at("pool-table").tHead.rows[0].cells) {
  const button = make(
    "button",
    {
      type: "button",
      onclick: () => {
        chosen.sort = head.dataset.sort;
        for (const each of head.parentNode.cells) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", chosen.sort === "name" ? "ascending" : "descending");
        drawPools();
      },
    },
    head.textContent,
  );
  head.replaceChildren(button, ...(head.dataset.under ? [make("span", { class: "under" }, head.dataset.under)] : []));
}
at("search").addEventListener("input", () => {
  chosen.search = at("search").value.trim().toLowerCase();
  drawPools();
  drawEvents();
});
function chip(text, on, press) {
  const button = make(
    "button",
    {
      type: "button",
      "aria-pressed": String(on),
      onclick: () => {
        button.setAttribute("aria-pressed", String(press()));
        drawEvents();
      },
    },
    text,
  );
  at("chips").append(button);
}
for (const kind of KINDS) chip(kind, true, () => (chosen.kinds.delete(kind) ? false : Boolean(chosen.kinds.add(kind))));
chip("pause", false, () => (chosen.paused = !chosen.paused));
at("chips").lastChild.className = "apart";
const theme = at("theme");
const dress = (name) =>
  name
    ? document.documentElement.setAttribute("data-theme", name)
    : document.documentElement.removeAttribute("data-theme");
theme.value = localStorage.getItem("theme") ?? "";
dress(theme.value);
theme.addEventListener("change", () => {
  localStorage.setItem("theme", theme.value);
  dress(theme.value);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !chosen.pool || event.target === at("search")) return;
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
setInterval(() => {
  if (marked) redrawTree();
}, 5000);
drawEvents();
follow(show, tell);
