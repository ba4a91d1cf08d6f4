// The events: a line for each, newest first.
import { clock, make, round, seconds } from "/page/dom.js";

const BAD = new Set([
  "worker.died",
  "worker.connect_error",
  "pool.timeout",
  "pool.shed",
  "pool.leak",
  "pool.reclaimed",
  "call.timeout",
  "breaker.opened",
  "supervisor.gave_up",
  "host.down",
]);
const worker = ({ worker, pid }) => `worker ${worker}${pid ? ` (pid ${pid})` : ""}`;

const SENTENCES = {
  "pool.started": ({ size, max_overflow, shared }) =>
    shared
      ? "serves, shared"
      : size === undefined
        ? "serves"
        : `serves with ${size} workers${max_overflow ? ` and up to ${max_overflow} more` : ""}`,
  "pool.stopped": () => "has ended",
  "pool.timeout": ({ timeout }) => `a caller waited ${seconds(timeout)} in vain`,
  "pool.overflow": (facts) => `${worker(facts)} was started above size`,
  "pool.shed": ({ waiting }) => `a caller was refused while ${waiting} waited`,
  "pool.reclaimed": ({ age, ...facts }) => `a lease was taken back after ${seconds(age)}${also(facts)}`,
  "pool.leak": ({ age, ...facts }) => `a lease has been out for ${seconds(age)}${also(facts)}`,
  "pool.leak_returned": ({ age }) => `the lease came back after ${seconds(age)}`,
  "pool.resized": ({ size, max_overflow }) =>
    `now ${size} workers${max_overflow ? ` and up to ${max_overflow} more` : ""}`,
  "worker.started": (facts) => `${worker(facts)} runs`,
  "worker.connected": ({ ms, ...facts }) =>
    `${worker(facts)} connected${ms === undefined ? "" : ` in ${seconds(ms / 1000)}`}`,
  "worker.connect_error": ({ reason, error, ...facts }) =>
    `${worker(facts)} cannot connect: ${reason ?? error ?? "lost"}`,
  "worker.restarted": (facts) => `${worker(facts)} was replaced`,
  "worker.died": ({ reason, ...facts }) => `${worker(facts)}: ${reason}`,
  "breaker.opened": () => "calls are refused from now on",
  "breaker.closed": () => "calls are let through again",
};

function also(facts) {
  const told = Object.entries(facts)
    .filter(([, value]) => value !== null && value !== "")
    .map(([key, value]) => `${key} ${typeof value === "number" ? round(value) : value}`);
  return told.length ? ` (${told.join(", ")})` : "";
}

export function sentence(event) {
  const facts = { ...event.measurements, ...event.metadata };
  const text = SENTENCES[event.name]?.(facts) ?? also(facts).slice(2, -1);
  return text.split("\n")[0];
}

// A button and not `details`, which has several hidden nodes of its own in a browser: there are hundreds of these.
export function eventLine(event, key) {
  if (event.gap) return make("li", { class: "gap", "data-key": key }, event.gap);
  const moment = new Date(event.time * 1000).toISOString();
  const unfold = ({ currentTarget: button }) => {
    const open = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", String(open));
    if (!open) button.nextSibling.remove();
    else {
      const all = { number: event.number, time: moment, ...event.measurements, ...event.metadata };
      button.after(make("pre", {}, JSON.stringify(all, null, 1)));
    }
  };
  return make(
    "li",
    { "data-key": key },
    make(
      "button",
      { type: "button", class: "event", "aria-expanded": "false", onclick: unfold },
      make("time", { datetime: moment }, clock(event.time)),
      make("span", { class: BAD.has(event.name) ? "kind bad" : "kind" }, event.name),
      make("span", { class: "of" }, event.pool ?? ""),
      make("span", { class: "what" }, sentence(event)),
    ),
  );
}
