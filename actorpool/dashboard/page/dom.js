// Elements, and how a part of the page that is drawn anew keeps what has not changed.

// What comes from pools, errors and programs becomes text nodes and attributes, never markup.
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const HANDLERS = ["onclick", "oninput", "onpointermove", "ontoggle"];
const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
const fits = (old, next) => old.nodeName === next.nodeName && keyOf(old) === keyOf(next);

// Give `place` these children. Nodes that can stay do, so the focus, a selection and what was unfolded stay as well.
export function patch(place, children) {
  const active = document.activeElement;
  const keyed = new Map([...place.children].map((child) => [keyOf(child), child]).filter(([key]) => key !== null));
  let at = place.firstChild;
  for (const next of children) {
    const key = keyOf(next);
    const old = next.parentNode === place ? next : key !== null ? keyed.get(key) : at;
    if (!old || !fits(old, next)) place.insertBefore(next, at);
    else {
      if (old === at) at = at.nextSibling;
      else place.insertBefore(old, at);
      if (old !== next) update(old, next);
    }
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
  if (active !== document.activeElement && place.contains(active)) active.focus({ preventScroll: true });
}

function update(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes])
    if (!next.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const handler of HANDLERS) old[handler] = next[handler];
  if (old.nodeName === "INPUT") old.value = next.value;
  if (!(old.nodeName === "DETAILS" && next.hasAttribute("data-lazy"))) patch(old, [...next.childNodes]);
}

// Draws a keyed element only when what it shows has changed.
export function memo() {
  let drawn = new Map();
  let kept = new Map();
  return {
    begin() {
      drawn = kept;
      kept = new Map();
    },
    draw(key, shown, build) {
      const told = JSON.stringify(shown);
      const before = drawn.get(key);
      const node = before?.told === told && before.node.isConnected ? before.node : build();
      kept.set(key, { told, node });
      return node;
    },
    // What stands in the page now, where `patch` has kept an older element instead of the new one.
    settle(place) {
      drawn = new Map(); // what is shown no more
      for (const child of place.children) {
        const one = kept.get(keyOf(child));
        if (one) one.node = child;
      }
    },
  };
}

export const soft = (...children) => make("span", { class: "soft" }, ...children);
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
export const clock = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return value < 0.00005 ? "0 ms" : `${round(value * 1000)} ms`;
  for (const [unit, length, limit] of [
    ["s", 1, 100],
    ["min", 60, 100],
    ["h", 3600, 48],
  ])
    if (value < limit * length) return `${round(value / length)} ${unit}`;
  return `${Math.round(value / 86400)} d`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const mega = value / (1 << 20);
  return mega < 1024 ? `${round(mega)} MiB` : `${round(mega / 1024)} GiB`;
}

export function round(value) {
  if (value === null || value === undefined) return "–";
  return value >= 9.95 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

export function table(caption, heads, rows) {
  return make(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    make(
      "table",
      { class: "plain-table" },
      make("caption", {}, caption),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          heads.map((head) =>
            make("th", { scope: "col", class: head.startsWith("#") ? "num" : null }, head.replace("#", "")),
          ),
        ),
      ),
      make(
        "tbody",
        {},
        rows.map((cells) =>
          make(
            "tr",
            {},
            cells.map((cell, index) =>
              make(
                "td",
                { class: heads[index].startsWith("#") ? "num" : null },
                cell instanceof Node ? cell : String(cell ?? "–"),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

export function command(text) {
  return make(
    "span",
    { class: "command" },
    make("code", {}, text),
    make("button", { type: "button", "aria-label": `Copy: ${text}`, onclick: copy }, "copy"),
  );
}

async function copy(event) {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(button.previousSibling.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(button.previousSibling);
    button.textContent = "Ctrl-C";
  }
  setTimeout(() => {
    button.textContent = "copy";
  }, 2000);
}
