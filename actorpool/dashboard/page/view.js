// The parts of the page. What comes from pools, errors and programs becomes text nodes, never markup.
import { bar, chart, round, spark } from "/page/charts.js";

export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function seconds(value) {
  if (value === null || value === undefined) return "-";
  if (value < 1) return value < 0.001 ? "0" : `${Math.round(value * 1000)} ms`;
  for (const [unit, length, limit] of [["s", 1, 100], ["min", 60, 100], ["h", 3600, 48]])
    if (value < limit * length) return `${(value / length).toFixed(value < 10 * length ? 1 : 0)} ${unit}`;
  return `${Math.round(value / 86400)} d`;
}

export const clock = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");

export function command(text) {
  const button = make("button", { type: "button", "aria-label": `Copy: ${text}`, onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "press Ctrl-C";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  } }, "copy");
  const code = make("code", {}, text);
  return make("span", { class: "command" }, code, button);
}

export function needs(attention, quiet) {
  if (!attention.length) return [make("p", { class: "soft" }, quiet)];
  return attention.map((need) => make("div", { class: "need" },
    make("span", { class: "mark", "aria-hidden": "true" }, "▲"), make("p", {}, need.text), ...need.commands.map(command)));
}

// A row of the table; `toggle` opens and closes its detail.
export function poolRow(pool, samples, open, toggle) {
  const button = make("button", { type: "button", class: "plain", "aria-expanded": String(open), "data-pool": pool.name, onclick: toggle }, pool.name);
  const pair = (low, high) => `${round(low)} / ${round(high)}`;
  return make("tr", { "data-row": pool.name },
    make("th", { scope: "row" }, button),
    make("td", {}, make("span", { class: "state", "data-need": pool.need }, pool.state)),
    make("td", {}, bar(pool), `${pool.monitors} of ${pool.size + pool.max_overflow} `, samples ? spark(samples, "leases", "leases out") : null),
    make("td", {}, String(pool.waiting), samples ? spark(samples, "waiting", "waiting") : null),
    make("td", { class: "wide" }, pool.waiting ? seconds(pool.oldest_wait) : "-"),
    make("td", { class: "wide" }, pair(pool.wait_ms_p50, pool.wait_ms_p99)),
    make("td", { class: "wide" }, pair(pool.hold_ms_p50, pool.hold_ms_p99)),
    make("td", { class: "mid" }, String(pool.restarts)));
}

function table(caption, heads, rows) {
  return make("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, make("table", {},
    make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, String(cell ?? "-"))))))));
}

// All of one pool: charts with one cursor, workers, leases.
export function detail(pool, moment) {
  const samples = pool.samples.map((sample) => ({ ...sample, limit: pool.status.size + pool.status.max_overflow }));
  const parts = [];
  parts.push(make("h3", {}, "History"), ...(samples.length ? charts(samples, moment) : [make("p", { class: "soft" }, "No sample yet.")]));
  parts.push(make("h3", {}, "Workers"), table(`Workers of ${pool.status.name}`,
    ["id", "pid", "state", "uses", "restarts", "connected", "kind"],
    pool.workers.map((worker) => [worker.id, worker.pid, worker.state, worker.calls, worker.restarts,
      worker.connected_at ? clock(worker.connected_at) : "-", worker.overflow ? "overflow" : "base"])));
  parts.push(make("h3", {}, "Leases"), pool.leases.length ? table(`Leases of ${pool.status.name}, oldest first`,
    ["id", "worker", "age", "held by"], pool.leases.map((lease) => [lease.id, lease.worker_id, seconds(lease.age), lease.holder]))
    : make("p", { class: "soft" }, "No lease is out."));
  return parts;
}

function charts(samples, moment) {
  const drawn = [
    chart("Leases out", samples, [["leases", "out"], ["limit", "limit"]]),
    chart("Waiting", samples, [["waiting", "waiting"]]),
    chart("Processes", samples, [["total", "processes"]]),
    chart("Wait, ms", samples, [["wait_ms_p50", "p50"], ["wait_ms_p99", "p99"]]),
  ];
  if (samples.some((sample) => sample.sessions !== null)) drawn.push(chart("Sessions of the server", samples, [["sessions", "sessions"]]));
  const last = samples.length - 1;
  const time = make("output", {}, "");
  const range = make("input", { type: "range", min: 0, max: last, value: Math.min(moment.index ?? last, last), "aria-label": "Moment that the charts show" });
  const show = () => {
    const index = Number(range.value);
    moment.index = index === last ? null : index;
    time.textContent = clock(samples[index].time);
    range.setAttribute("aria-valuetext", time.textContent);
    for (const each of drawn) each.point(index);
  };
  range.addEventListener("input", show);
  for (const each of drawn) each.svg.addEventListener("pointermove", (event) => {
    const box = each.svg.getBoundingClientRect();
    range.value = Math.round(((event.clientX - box.left) / box.width) * last);
    show();
  });
  show();
  const rows = samples.map((sample) => [clock(sample.time), sample.leases, sample.waiting, sample.total, round(sample.wait_ms_p50), round(sample.wait_ms_p99), sample.sessions]).reverse();
  return [make("div", { class: "charts" }, ...drawn.map((each) => each.figure)), make("div", { class: "moment" }, range, time),
    make("details", {}, make("summary", {}, "As a table"), table("Samples, latest first", ["time", "out", "waiting", "processes", "wait p50 ms", "wait p99 ms", "sessions"], rows))];
}

const MOST_ROWS = 60;
const rows = (node) => 1 + node.children.reduce((sum, child) => sum + rows(child), 0);

// The tree; `memory` keeps what was there before, so that a restart can be marked, and what a person has opened.
export function tree(root, memory) {
  const fold = rows(root) > MOST_ROWS;
  const now = Date.now() / 1000;
  const seen = new Map();
  const made = twig(root, root.id, fold);
  memory.pids = seen;
  return made;

  // The pid that this node had, or that of the sibling in whose place it is.
  function predecessor(node, path, gone) {
    if (!memory.pids || !node.pid) return null;
    const before = memory.pids.get(path);
    if (before) return before === node.pid ? null : before;
    return node.restarts ? (gone.shift() ?? "?") : null;
  }

  function twig(node, path, folded, gone = []) {
    const old = predecessor(node, path, gone);
    if (old !== null) memory.marks.set(path, { pid: old, time: now, fresh: true });
    const before = memory.pids?.get(path);
    if (node.pid) seen.set(path, node.pid);
    else if (before) seen.set(path, before);
    const mark = memory.marks.get(path);
    if (mark && now - mark.time > 60) memory.marks.delete(path);
    const leaves = folded && node.kind === "pool" && node.children.length > 1;
    const open = memory.open.get(path) ?? !leaves;
    const toggle = node.children.length ? make("button", { type: "button", class: "toggle", "data-path": path, "aria-expanded": String(open),
      "aria-label": `${node.kind} ${node.id}`, onclick: () => { memory.open.set(path, !open); memory.again(); } }, open ? "▾" : "▸") : make("span", { class: "leaf" });
    const line = make("div", { class: mark ? `restarted${mark.fresh ? " fresh" : ""}` : null }, toggle, make("span", {}, `${node.kind} `, make("strong", {}, String(node.id))),
      node.pid ? make("span", { class: "pid" }, "pid ", mark ? make("del", {}, String(mark.pid)) : "", mark ? " " : "", String(node.pid)) : null,
      make("span", { class: ["restarting", "failed", "down"].includes(node.state) ? "trouble" : "soft" }, node.state),
      node.strategy ? make("span", { class: "soft" }, node.strategy) : null,
      node.restarts ? make("span", {}, `${node.restarts} restart${node.restarts > 1 ? "s" : ""}`) : null,
      node.restarts_limit && node.restarts_used ? make("span", {}, `${node.restarts_used} of ${node.restarts_limit} in ${seconds(node.restarts_period)}`) : null,
      mark ? make("strong", {}, `restarted ${clock(mark.time)}`) : null,
      node.last_end ? make("span", { class: "soft" }, `last end: ${node.last_end}`) : null,
      open ? null : make("span", { class: "soft" }, counted(node.children)));
    if (mark) mark.fresh = false;
    const item = make("li", {}, line);
    if (node.output) item.append(make("details", {}, make("summary", {}, "last output"), make("pre", {}, [].concat(node.output).join("\n"))));
    const below = (child) => `${path}/${child.kind}:${child.id}`;
    const present = new Set(node.children.map(below));
    const vanished = [...(memory.pids ?? [])].filter(([other]) => other.startsWith(`${path}/`) && !other.slice(path.length + 1).includes("/") && !present.has(other)).map(([, pid]) => pid);
    const twigs = node.children.map((child) => twig(child, below(child), folded, vanished));
    if (open && twigs.length) item.append(make("ul", {}, ...twigs));
    return item;
  }
}

function counted(children) {
  const states = {};
  for (const child of children) states[child.state] = (states[child.state] ?? 0) + 1;
  return `${children.length} ${children[0].kind}s: ${Object.entries(states).map(([state, count]) => `${count} ${state}`).join(", ")}`;
}

const BAD = /died|error|gave_up|opened|timeout|leak$|shed|reclaimed/;

export function eventLine(event) {
  if (event.gap) return make("li", { class: "gap" }, event.gap);
  const facts = Object.entries({ ...event.measurements, ...event.metadata }).filter(([, value]) => value !== null && value !== "");
  const words = facts.map(([key, value]) => `${key} ${typeof value === "number" ? round(value) : String(value).split("\n")[0]}`).join(", ");
  return make("li", {}, make("details", {}, make("summary", {}, make("time", { datetime: new Date(event.time * 1000).toISOString() }, clock(event.time)), " ",
    make("span", { class: BAD.test(event.name) ? "bad" : null }, event.name), event.pool ? ` ${event.pool}` : "", words ? make("span", { class: "soft" }, ` ${words}`) : ""),
    make("pre", {}, JSON.stringify({ number: event.number, ...event.measurements, ...event.metadata }, null, 1))));
}
