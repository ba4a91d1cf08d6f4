// Bars, sparklines and charts, as SVG. Everything they show is said in words as well.
const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function points(values, highest, height) {
  const step = 100 / Math.max(values.length - 1, 1);
  return values
    .map((value, index) => (value === null ? null : `${(index * step).toFixed(2)},${(height - (value / highest) * height).toFixed(2)}`))
    .filter((point) => point !== null).join(" ");
}

export function bar(pool) {
  const limit = Math.max(pool.size + pool.max_overflow, pool.total, 1);
  const other = Math.max(0, pool.total - pool.monitors - pool.workers);
  const words = `${pool.monitors} of ${limit} out, ${pool.workers} idle${other ? `, ${other} not ready` : ""}`;
  const drawn = shape("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": words });
  drawn.append(shape("rect", { class: "track", width: 100, height: 10 }));
  let x = 0;
  for (const [kind, count] of [["used", pool.monitors], ["other", other], ["idle", pool.workers]]) {
    const width = (count / limit) * 100;
    if (count) drawn.append(shape("rect", { class: kind, x, width, height: 10 }));
    x += width;
  }
  if (pool.max_overflow) {
    const size = (pool.size / limit) * 100;
    drawn.append(shape("line", { class: "size", x1: size, x2: size, y1: 0, y2: 10 }));
  }
  return drawn;
}

export function spark(samples, key, words) {
  const values = samples.map((sample) => sample[key]);
  const highest = Math.max(1, ...values);
  const label = `${words}: now ${values.at(-1) ?? "unknown"}, at most ${Math.max(0, ...values)} of the last ${values.length} samples`;
  return shape("svg", { class: "spark", viewBox: "0 -1 100 22", preserveAspectRatio: "none", role: "img", "aria-label": label },
    shape("polyline", { points: points(values, highest, 20) }));
}

// One chart of several lines: `lines` are [key, name]; `most` is the least height of its scale.
export function chart(title, samples, lines, most = 1) {
  const highest = Math.max(most, ...lines.flatMap(([key]) => samples.map((sample) => sample[key] ?? 0)));
  const cursor = shape("line", { class: "cursor", y1: 0, y2: 100, x1: 100, x2: 100 });
  const words = lines.map(([key, name]) => {
    const values = samples.map((sample) => sample[key]).filter((value) => value !== null);
    return `${name} ${round(Math.min(...values))} to ${round(Math.max(...values))}, last ${round(values.at(-1))}`;
  }).join("; ");
  const drawn = shape("svg", { viewBox: "0 -2 100 104", preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${words}` });
  lines.forEach(([key], index) => {
    const values = samples.map((sample) => sample[key]);
    drawn.append(shape("polyline", { class: index ? "second" : "first", points: points(values, highest, 100) }));
  });
  drawn.append(cursor);
  const figure = document.createElement("figure");
  figure.className = "chart";
  const caption = document.createElement("figcaption");
  const reading = document.createElement("span");
  caption.append(title, reading);
  figure.append(caption, drawn);
  return {
    figure,
    svg: drawn,
    point(index) {
      const x = (index * 100) / Math.max(samples.length - 1, 1);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      reading.textContent = lines.map(([key, name]) => `${name} ${round(samples[index][key])}`).join(", ");
    },
  };
}

export function round(value) {
  if (value === null || value === undefined) return "unknown";
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 2 : 0);
}
