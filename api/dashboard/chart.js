// Curves, drawn as SVG: numbers become coordinates, and a sentence for whoever does not see them.

const SVG = "http://www.w3.org/2000/svg";
const SPAN_MS = 120_000;
const GAP_MS = 5_000; // a longer one between two points is left empty

export function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

/** Points in a row, split where some are missing. */
function runs(points) {
  const found = [];
  points.forEach((point, at) => {
    if (!at || point.at - points[at - 1].at > GAP_MS) found.push([]);
    found.at(-1).push(point);
  });
  return found.filter((run) => run.length > 1);
}

/** The least round number that is no less, whose half is round too. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return power * [1, 2, 3, 4, 6, 8, 10].find((step) => step * power >= value);
}

const place = (number) => number.toFixed(1);
const path = (places) => places.map(([x, y], at) => `${at ? "L" : "M"}${place(x)} ${place(y)}`).join("");

/** A small curve of one series: `points` are {at, value}. */
export function spark(box, points, format) {
  const width = box.clientWidth || 160, height = box.clientHeight || 32;
  let svg = box.firstElementChild;
  if (!svg) {
    svg = element("svg", { role: "img" });
    svg.append(element("path", { class: "under" }), element("path", { class: "line" }));
    box.append(svg);
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const now = points.length ? points.at(-1).at : 0;
  const values = points.map((point) => point.value);
  const most = Math.max(0, ...values), least = Math.min(most, ...values);
  const span = Math.max(20_000, now - (points[0]?.at ?? now)); // what there is fills the card
  const floor = least > most * 0.5 && most > least ? least - (most - least) * 0.5 : 0; // a level series shows what moves in it
  const high = most > least ? most : most * 1.6; // one that does not move lies in the middle
  const x = (point) => width - ((now - point.at) / span) * width;
  const y = (point) => height - 2 - (high > floor ? (point.value - floor) / (high - floor) : 0) * (height - 4);
  const lines = runs(points).map((run) => run.map((point) => [x(point), y(point)]));
  svg.children[1].setAttribute("d", lines.map(path).join(""));
  svg.children[0].setAttribute("d", lines.map((line) => `${path(line)}L${place(line.at(-1)[0])} ${height}L${place(line[0][0])} ${height}Z`).join(""));
  const said = values.length < 2 ? "No curve yet" : `Last two minutes: between ${format(least)} and ${format(most)}, now ${format(values.at(-1))}`;
  if (svg.getAttribute("aria-label") !== said) svg.setAttribute("aria-label", said);
}

/** Areas on top of each other: `points` are {at, [series]: number}, `series` the names from the bottom up. */
export function stack(box, points, series, labels, format) {
  const width = box.clientWidth || 600, height = box.clientHeight || 220;
  const left = 44, right = 6, top = 8, bottom = height - 22;
  const total = (point) => series.reduce((sum, name) => sum + point[name], 0);
  const most = Math.max(1, ...points.map(total)), high = roundUp(most);
  const now = points.length ? points.at(-1).at : 0;
  const x = (at) => width - right - ((now - at) / SPAN_MS) * (width - left - right);
  const y = (value) => bottom - (value / high) * (bottom - top);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": describe(points, series, labels, format) });
  for (const part of [0, 0.5, 1]) {
    const at = Math.round(y(high * part)) + 0.5;
    svg.append(element("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    svg.append(element("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, format(high * part).replace(/\.0$/, "")));
  }
  const times = width < 420 ? [120, 60, 0] : [120, 90, 60, 30, 0];
  for (const ago of times) {
    const anchor = ago === 0 ? "end" : ago === 120 ? "start" : "middle";
    svg.append(element("text", { x: x(now - ago * 1000), y: height - 4, "text-anchor": anchor }, ago ? `${ago} s ago` : "now"));
  }
  for (const run of runs(points.filter((point) => now - point.at <= SPAN_MS))) {
    const under = run.map(() => 0);
    for (const name of series) {
      const low = run.map((point, at) => [x(point.at), y(under[at])]);
      run.forEach((point, at) => { under[at] += point[name]; });
      if (!run.some((point) => point[name])) continue;
      const area = run.map((point, at) => [x(point.at), y(under[at])]).concat(low.reverse());
      svg.append(element("path", { class: `area ${name}`, d: `${path(area)}Z` }));
      if (name === series[0]) svg.append(element("path", { class: `edge ${name}`, d: path(area.slice(0, run.length)) }));
    }
  }
  if (!points.some(total)) {
    const said = points.length > 1 ? "No calls since this page was opened" : "Waiting for two readings";
    svg.append(element("text", { x: (left + width) / 2, y: (top + bottom) / 2 - 10, "text-anchor": "middle" }, said));
  }
  box.replaceChildren(svg);
}

function describe(points, series, labels, format) {
  if (points.length < 2) return "Calls per second over the last two minutes: no readings yet";
  const parts = series.map((name) => {
    const values = points.map((point) => point[name]);
    return `${labels[name]} now ${format(values.at(-1))}, at most ${format(Math.max(...values))}`;
  });
  return `Calls per second over the last two minutes: ${parts.join("; ")}`;
}
