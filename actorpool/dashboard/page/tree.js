// The supervision tree, and what was started again lately.
import { clock, make, patch, plural, seconds, soft } from "/page/dom.js";
import { ended } from "/page/pools.js";

const MOST_ROWS = 60;
const MARKED = 60,
  FRESH = 3;
const TROUBLE = new Set(["restarting", "failed", "down", "stopped"]);
const rows = (node) => 1 + node.children.reduce((sum, child) => sum + rows(child), 0);

// Draw it at `place`. `open` has what a person has unfolded or folded, by path, and `again` draws it once more. Whether any mark stands.
export function drawTree(place, root, open, again) {
  const fold = rows(root) > MOST_ROWS;
  const now = Date.now() / 1000;
  let marks = 0;
  patch(place, [twig(root, String(root.id))]);
  return marks > 0;

  function twig(node, path) {
    const unfolded =
      open.get(path) ??
      !(
        fold &&
        (node.kind === "pool" ||
          (node.kind === "supervisor" &&
            rows(node) > MOST_ROWS &&
            node.children.every((child) => child.kind === "worker")))
      );
    const toggle = () => {
      open.set(path, !unfolded);
      again();
    };
    const age = node.restarts && node.since ? now - node.since : Infinity;
    if (age < MARKED) marks += 1;
    const before = age < MARKED ? /\(pid (\d+)\)/.exec(node.last_end ?? "")?.[1] : null;
    const line = make(
      "div",
      { class: `twig${age < MARKED ? " restarted" : ""}${age < FRESH ? " fresh" : ""}` },
      node.children.length
        ? make(
            "button",
            {
              type: "button",
              class: "toggle",
              "aria-expanded": String(unfolded),
              "aria-label": `${node.kind} ${node.id}`,
              onclick: toggle,
            },
            unfolded ? "▾" : "▸",
          )
        : make("span", { class: "leaf" }),
      make("span", { class: "label" }, soft(node.kind), " ", make("b", {}, String(node.id))),
      make(
        "span",
        { class: "pid" },
        before && before !== String(node.pid) ? make("del", {}, before) : "",
        before ? " " : "",
        node.pid ? String(node.pid) : "–",
      ),
      make("span", { class: TROUBLE.has(node.state) ? "doing bad" : "doing" }, stateOf(node)),
      notes(node, unfolded, age),
    );
    return make(
      "li",
      { "data-key": path },
      line,
      unfolded && node.children.length
        ? make(
            "ul",
            {},
            node.children.map((child) => twig(child, `${path}/${child.kind}:${child.id}`)),
          )
        : null,
    );
  }
}

// Whether a worker is lent is told with the pool, every second; the tree is asked for only when something has changed.
const stateOf = (node) =>
  node.kind === "worker" && (node.state === "busy" || node.state === "idle") ? "running" : node.state;

function notes(node, unfolded, age) {
  const told = [
    age < MARKED ? make("strong", {}, `started again ${clock(node.since)}`) : null,
    node.strategy && node.strategy !== "one_for_one" ? node.strategy : null,
    node.restarts ? plural(node.restarts, "restart") : null,
    node.restarts_limit && node.restarts_used
      ? `${node.restarts_used} of ${node.restarts_limit} restarts in ${seconds(node.restarts_period)}`
      : null,
    node.last_end ? ended(node.last_end) : null,
    unfolded || !node.children.length ? null : counted(node.children),
  ].filter((each) => each !== null);
  if (!told.length && !node.output) return null;
  return make(
    "div",
    { class: "notes" },
    told.flatMap((each, index) => (index ? [" · ", each] : [each])),
    node.output
      ? make("details", {}, make("summary", {}, "last words"), make("pre", {}, [].concat(node.output).join("\n")))
      : null,
  );
}

function counted(children) {
  const states = {};
  for (const state of children.map(stateOf)) states[state] = (states[state] ?? 0) + 1;
  const all = plural(children.length, children[0].kind);
  return states.running === children.length
    ? all
    : `${all}: ${Object.entries(states)
        .map(([state, count]) => `${count} ${state}`)
        .join(", ")}`;
}

// The workers of a pool by id.
export function workersOf(root, pool) {
  const found = new Map();
  const visit = (node) => {
    if (node.kind === "pool" && node.id === pool) for (const child of node.children) found.set(String(child.id), child);
    else node.children.forEach(visit);
  };
  if (root) visit(root);
  return found;
}
