// Bars, lines and charts, as SVG. Everything they show is said in words as well.
import { make, shape } from "/page/dom.js";

const WIDE = 100,
  HIGH = 100;

function points(values, top) {
  const step = WIDE / Math.max(values.length - 1, 1);
  return values
    .map((value, index) => (value === null || value === undefined ? null : [index * step, HIGH - (value / top) * HIGH]))
    .filter((point) => point !== null)
    .map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`);
}

function lined(values, top, kind) {
  const found = points(values, top);
  const line = shape("polyline", { class: `line ${kind}`, points: found.join(" ") });
  if (kind !== "first" || !values.some((value) => value)) return [line];
  const [left, right] = [found[0], found.at(-1)].map((point) => point.split(",")[0]);
  return [shape("polygon", { class: "area", points: `${left},${HIGH} ${found.join(" ")} ${right},${HIGH}` }), line];
}

const drawn = (name, words, ...children) =>
  shape(
    "svg",
    { class: name, viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": words },
    ...children,
  );

// Workers that are out, start and are idle, up to size and overflow; `size` is marked where overflow is allowed.
export function bar(pool) {
  const limit = Math.max(pool.size + pool.max_overflow, pool.total, 1);
  const other = Math.max(0, pool.total - pool.monitors - pool.workers);
  const words = `${pool.monitors} of ${limit} out, ${pool.workers} idle${other ? `, ${other} not ready` : ""}`;
  let x = 0;
  const parts = [
    ["used", pool.monitors],
    ["other", other],
    ["idle", pool.workers],
  ]
    .filter(([, count]) => count)
    .map(([kind, count]) => {
      const width = (count / limit) * WIDE;
      x += width;
      return shape("rect", { class: kind, x: x - width, width, height: HIGH });
    });
  const size = (pool.size / limit) * WIDE;
  return drawn(
    "bar",
    words,
    parts,
    pool.max_overflow && pool.size ? shape("line", { class: "size", x1: size, x2: size, y1: 0, y2: HIGH }) : null,
  );
}

export function spark(samples, key, words, least = 0) {
  const values = (samples ?? []).map((sample) => sample[key]);
  const most = Math.max(0, ...values);
  const label = values.length
    ? `${words}: now ${values.at(-1) ?? "unknown"}, at most ${most} in the last ${values.length} samples`
    : `${words}: no sample yet`;
  return drawn("spark", label, lined(values, Math.max(1, least, most), "first"));
}

// The least of 1, 2 and 5 times a power of ten that has room for it.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((times) => times * power).find((top) => value <= top * 1.001);
}

// One chart of several lines, each [key, name]; `index` is the sample at the cursor that all charts share.
// `words` says a figure.
export function chart(title, words, samples, lines, index, point) {
  const top = ceiling(Math.max(1, ...lines.flatMap(([key]) => samples.map((sample) => sample[key] ?? 0))));
  const kinds = ["first", "second"];
  const told = lines
    .map(([key, name]) => {
      const values = samples.map((sample) => sample[key]).filter((value) => value !== null);
      return values.length
        ? `${name} ${words(Math.min(...values))} to ${words(Math.max(...values))}, last ${words(values.at(-1))}`
        : `${name} unknown`;
    })
    .join("; ");
  const x = (index * WIDE) / Math.max(samples.length - 1, 1);
  const picture = drawn(
    "plot",
    `${title}: ${told}`,
    shape("line", { class: "grid", x1: 0, x2: WIDE, y1: HIGH / 2, y2: HIGH / 2 }),
    lines.flatMap(([key], number) =>
      lined(
        samples.map((sample) => sample[key]),
        top,
        kinds[number],
      ),
    ),
    shape("line", { class: "cursor", x1: x, x2: x, y1: 0, y2: HIGH }),
  );
  picture.onpointermove = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    point(
      Math.min(
        samples.length - 1,
        Math.max(0, Math.round(((event.clientX - box.left) / box.width) * (samples.length - 1))),
      ),
    );
  };
  const readings = lines.map(([key, name], number) =>
    make(
      "span",
      { class: `reading ${kinds[number]}` },
      name ? `${name} ` : "",
      make("b", {}, `${words(samples[index][key])}`),
    ),
  );
  return make(
    "figure",
    { class: "chart" },
    make("figcaption", {}, make("span", { class: "title" }, title), readings),
    make("div", { class: "frame" }, picture, make("span", { class: "top", "aria-hidden": "true" }, `${words(top)}`)),
  );
}
