// Histograms of the labels and of the fields of .json, beside the images. Each bar selects its images.

import { fetchJson } from "./api.js";
import { el, formatCount } from "./dom.js";

const MAX_BARS = 200;
const cache = new Map(); // of the last source and shard
let latest = 0;

export async function showStatistics(element, { source, digest, shard, label, where, statistics, hrefWith }) {
  latest += 1;
  const current = latest;
  element.hidden = !statistics;
  if (!statistics) return;
  const key = JSON.stringify([source, digest, shard]);
  if (!cache.has(key)) {
    element.replaceChildren(el("p", { class: "soft" }, "Reading labels and fields …"));
    const read = (path, query) => fetchJson(path, query).catch((error) => error);
    const found = [await read("fields", { source, shard }), await read("labels", { source })]; // in turn: the first reads tars without index
    if (current !== latest) return;
    cache.clear();
    cache.set(key, found);
  }
  const [fields, labels] = cache.get(key);
  const sections = [];
  if (labels instanceof Error) sections.push(el("p", { class: "error" }, labels.message));
  else if (labels.length) {
    sections.push(histogram("Label", labels.slice(0, MAX_BARS).map((one) => ({
      text: one.name ?? `${one.label}`, count: one.count, href: hrefWith({ label: one.label }), active: label === `${one.label}`,
    })), labels.length > MAX_BARS ? `${formatCount(labels.length - MAX_BARS)} more in the filter` : ""));
  }
  if (fields instanceof Error) sections.push(el("p", { class: "error" }, fields.message));
  else {
    for (const { name, kind, bars, others } of fields) {
      sections.push(histogram(name, bars.map(([condition, text, count]) => ({
        text, count, href: hrefWith({ condition }), active: where.includes(JSON.stringify(condition)),
      })), kind === "text" ? `${formatCount(others)} texts` : others ? `${formatCount(others)} with other values` : ""));
    }
  }
  if (!sections.length) sections.push(el("p", { class: "soft" }, "These images have no labels and no .json."));
  element.replaceChildren(...sections);
}

function histogram(title, bars, note = "") {
  const most = Math.max(1, ...bars.map((one) => one.count));
  const rows = bars.map(({ text, count, href, active }) => {
    const bar = el("i", {});
    bar.style.width = `${(100 * count) / most}%`;
    return el("a", { class: "stat", href, "aria-current": active ? "true" : null, title: text }, bar, el("bdi", {}, text), el("span", {}, formatCount(count)));
  });
  return el("section", {}, el("h2", {}, el("bdi", {}, title)), ...rows, note ? el("p", { class: "soft" }, note) : null);
}
