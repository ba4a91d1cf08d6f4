// The pools: a row for each, and all of the one that is opened.
import { bar, chart, spark } from "/page/charts.js";
import { bytes, clock, command, make, plural, round, seconds, soft, table } from "/page/dom.js";

const limitOf = (pool) => pool.size + pool.max_overflow;
const milliseconds = (value) => seconds(value === null ? null : value / 1000);
const two = (first, second) => [make("span", { class: "over" }, first), make("span", { class: "under" }, second)];
const stated = (pool, more = "") =>
  make("span", { class: `state ${more}`, "data-need": pool.need }, pool.state.replace("_", " "));

// A pool's row; `lately` restarts of its workers are of the last hour.
export function poolRow(pool, samples, lately, open, toggle) {
  return make(
    "tr",
    { "data-key": pool.name, class: open ? "opened" : null },
    make(
      "th",
      { scope: "row" },
      make(
        "button",
        { type: "button", class: "name", "aria-expanded": String(open), "data-pool": pool.name, onclick: toggle },
        pool.name,
      ),
      stated(pool, "within"),
    ),
    make("td", { class: "states" }, stated(pool)),
    make(
      "td",
      { class: "workers" },
      make(
        "div",
        { class: "pair" },
        make("div", {}, bar(pool), make("span", { class: "under" }, `${pool.monitors} of ${limitOf(pool)} out`)),
        spark(samples, "leases", "leases out", limitOf(pool)),
      ),
    ),
    make(
      "td",
      { class: "waiting" },
      make(
        "div",
        { class: "pair" },
        make(
          "div",
          {},
          make("span", { class: pool.waiting ? "over bad" : "over" }, String(pool.waiting)),
          make("span", { class: "under" }, pool.waiting ? seconds(pool.oldest_wait) : ""),
        ),
        spark(samples, "waiting", "waiting"),
      ),
    ),
    make(
      "td",
      { class: "num wide" },
      pool.checkouts ? two(milliseconds(pool.wait_ms_p50), milliseconds(pool.wait_ms_p99)) : "–",
    ),
    make(
      "td",
      { class: "num wide" },
      pool.checkouts ? two(milliseconds(pool.hold_ms_p50), milliseconds(pool.hold_ms_p99)) : "–",
    ),
    make("td", { class: "num wide" }, pool.restarts ? two(String(lately), String(pool.restarts)) : "0"),
    make("td", { class: "num wide" }, bytes(pool.memory_bytes)),
  );
}

// All of one pool. `twigs` are its workers in the tree, by id; `moment` is the sample that the charts tell, and `show` draws again.
export function detail(pool, twigs, moment, show) {
  return [
    make(
      "div",
      { class: "detail" },
      facts(pool.status, pool.workers),
      ...history(pool, moment, show),
      ...workers(pool, twigs),
      ...leases(pool),
      settings(pool),
    ),
  ];
}

function facts(pool, workers) {
  const told = [
    ["running for", seconds(pool.since)],
    ["checkouts", pool.checkouts],
    ["timeouts", pool.timeouts],
    ["shed", pool.shed],
    ["reclaimed", pool.reclaimed],
    ["restarts", pool.restarts],
    ["connect errors", pool.connect_errors],
    ["wait p50", milliseconds(pool.wait_ms_p50)],
    ["wait p99", milliseconds(pool.wait_ms_p99)],
    ["hold p50", milliseconds(pool.hold_ms_p50)],
    ["hold p99", milliseconds(pool.hold_ms_p99)],
    ["memory", bytes(workers.reduce((sum, worker) => sum + (worker.memory_bytes ?? 0), 0) || null)],
  ];
  return make(
    "dl",
    { class: "facts" },
    told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))),
  );
}

function history(pool, moment, show) {
  const samples = pool.samples.map((sample) => ({ ...sample, limit: limitOf(pool.status) }));
  if (!samples.length)
    return [make("h3", {}, "History"), make("p", { class: "soft" }, "No sample yet: one is taken every few seconds.")];
  const last = samples.length - 1;
  const index = Math.min(moment.index ?? last, last);
  const point = (to) => {
    moment.index = to === last ? null : to;
    show();
  };
  const one = (title, words, ...lines) => chart(title, words, samples, lines, index, point);
  const charts = [
    one("Leases out", round, ["leases", ""], ["limit", "limit"]),
    one("Waiting", round, ["waiting", ""]),
    one("Wait", milliseconds, ["wait_ms_p50", "p50"], ["wait_ms_p99", "p99"]),
    one("Hold", milliseconds, ["hold_ms_p99", "p99"]),
    one("Processes", round, ["total", ""]),
  ];
  if (samples.some((sample) => sample.sessions !== null))
    charts.push(one("Sessions of the server", round, ["sessions", ""]));
  const heads = ["Time", "#Out", "#Waiting", "#Processes", "#Wait p50", "#Wait p99", "#Hold p99", "#Sessions"];
  const rows = samples.map((sample) => [
    clock(sample.time),
    sample.leases,
    sample.waiting,
    sample.total,
    milliseconds(sample.wait_ms_p50),
    milliseconds(sample.wait_ms_p99),
    milliseconds(sample.hold_ms_p99),
    sample.sessions,
  ]);
  const time = clock(samples[index].time);
  const every = make(
    "details",
    {
      "data-lazy": true,
      ontoggle: (event) => {
        if (event.currentTarget.open) event.currentTarget.append(table("Samples, latest first", heads, rows.reverse()));
        else event.currentTarget.lastChild.remove();
      },
    },
    make("summary", {}, "As a table"),
  );
  return [
    make("h3", {}, "History ", soft(`${plural(samples.length, "sample")} since ${clock(samples[0].time)}`)),
    make("div", { class: "charts" }, charts),
    make(
      "div",
      { class: "moment" },
      make("input", {
        type: "range",
        min: 0,
        max: last,
        value: index,
        "aria-label": "Moment that the charts tell",
        "aria-valuetext": time,
        oninput: (event) => point(Number(event.currentTarget.value)),
      }),
      make("output", {}, time),
    ),
    every,
  ];
}

function workers(pool, twigs) {
  const rows = pool.workers.map((worker) => {
    const twig = twigs.get(String(worker.id));
    return [
      `${worker.id}${worker.overflow ? " overflow" : ""}`,
      worker.pid,
      worker.state,
      worker.connected_at ? clock(worker.connected_at) : null,
      worker.calls,
      bytes(worker.memory_bytes),
      worker.restarts,
      lastWords(twig),
    ];
  });
  return [
    make("h3", {}, "Workers ", soft(String(rows.length))),
    rows.length
      ? table(
          `Workers of ${pool.status.name}`,
          ["Worker", "Pid", "State", "Since", "#Uses", "#Memory", "#Restarts", "Last end"],
          rows,
        )
      : make("p", { class: "soft" }, "It has none of its own."),
  ];
}

function lastWords(twig) {
  if (!twig?.last_end) return null;
  return twig.output
    ? make("details", {}, make("summary", {}, ended(twig.last_end)), make("pre", {}, twig.output))
    : make("span", {}, ended(twig.last_end));
}

// Of an end of today, the time alone.
export function ended(text) {
  const today = new Date().toLocaleDateString("sv");
  return text.replace(` at ${today} `, " at ");
}

function leases(pool) {
  const rows = pool.leases.map((lease) => [lease.id, lease.worker_id, seconds(lease.age), lease.holder]);
  return [
    make("h3", {}, "Leases ", soft(String(rows.length))),
    rows.length
      ? table(`Leases of ${pool.status.name}, oldest first`, ["Lease", "Worker", "#Age", "Held by"], rows)
      : make("p", { class: "soft" }, "None is out."),
  ];
}

function settings(pool) {
  const told = Object.entries(pool.config);
  return make(
    "details",
    { class: "config" },
    make("summary", {}, `Configuration, ${plural(told.length, "setting")}; secrets are left out`),
    make(
      "dl",
      { class: "settings" },
      told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    ),
  );
}

export function needs(attention) {
  return attention.map((need) => {
    const text = need.text.startsWith(`${need.pool}: `)
      ? [make("b", {}, need.pool), need.text.slice(need.pool.length)]
      : [need.text];
    return make(
      "li",
      { "data-key": need.pool ?? need.text, "data-need": need.need ?? 4 },
      make("p", {}, text),
      make(
        "div",
        { class: "commands" },
        need.commands.map(command),
        need.runbook ? make("span", { class: "soft" }, "Read: ", make("code", {}, need.runbook)) : null,
      ),
    );
  });
}
