// Line charts as SVG, one line per loop, scaled to the range of the data.

import { el } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [380, 150, 44, 18, 6];

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function formatNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10000) return `${Math.round(value / 1000)}k`;
  return size >= 0.001 ? `${Number(value.toPrecision(3))}` : value.toExponential(1);
}

// The class with the colour of an arm, which is that of the report.
const ARMS = ["none", "none-weak", "vanilla", "reweighted", "weak", "adainf", "verified", "positives",
  "adainf-positives", "third-view", "random-positives", "untrained"];
export const colourOf = (arm) => (ARMS.includes(arm) ? `arm-${arm}` : "other");

// `lines`: [name, points, class of the colour]; a point is [step, value].
export function chart(title, lines) {
  const finite = lines.map(([name, points, colour]) => [name, points.filter(([, value]) => Number.isFinite(value)), colour]);
  const all = finite.flatMap(([, points]) => points);
  if (!all.length) return null;
  let [low, high, last] = [Infinity, -Infinity, 1];
  for (const [step, value] of all) { low = Math.min(low, value); high = Math.max(high, value); last = Math.max(last, step); }
  if (low === high) { low -= Math.abs(low) / 2 || 0.5; high += Math.abs(high) / 2 || 0.5; }
  const x = (step) => LEFT + (step / last) * (WIDTH - LEFT - 6);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const rows = [high, (low + high) / 2, low].flatMap((value) => [
    svg("line", { x1: LEFT, x2: WIDTH - 6, y1: y(value), y2: y(value) }),
    svg("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, formatNumber(value)),
  ]);
  const steps = [
    svg("text", { x: LEFT, y: HEIGHT - 3 }, "0"),
    svg("text", { x: WIDTH - 6, y: HEIGHT - 3, "text-anchor": "end" }, last.toLocaleString("en")),
  ];
  const paths = finite.map(([, points, colour]) =>
    svg("path", { class: colour, d: points.map(([step, value], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("") }));
  const ends = finite.map(([name, points]) => `${name} ${points.length ? formatNumber(points.at(-1)[1]) : "no data"}`).join(", ");
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}, last values: ${ends}` }, ...rows, ...steps, ...paths);
  return el("figure", {}, el("figcaption", {}, title), chart);
}

export const legend = (names) =>
  el("div", { class: "legend" }, ...names.map((name) => el("span", {}, el("i", { class: colourOf(name) }), name)));
