// The overview of a run: artifacts, plan, arms and training curves. Refreshed every few seconds while visible.

import { fetchJson } from "./api.js";
import { chart, colourOf, formatNumber, legend } from "./charts.js";
import { $, el, formatBytes, formatCount } from "./dom.js";

const TITLES = { loss: "Loss", feature_spread: "Feature spread", rank_me: "Effective rank", probe_accuracy: "Online probe accuracy", knn: "kNN accuracy",
  images_per_s: "Images per second", data_wait_pct: "Data wait, %", learning_rate: "Learning rate" };

let rendered = "";

export async function showOverview(catalog) {
  document.title = "AdaInf shards";
  const [run, curves] = catalog.is_run ? await Promise.all([fetchJson("run"), fetchJson("curves")]) : [null, {}];
  const state = JSON.stringify([catalog, run, curves]);
  if (state === rendered) return; // keeps selection and focus
  rendered = state;
  const sections = [el("h1", { id: "overview-title" }, catalog.is_run ? "Run" : "Shards"), sources(catalog)];
  if (run) sections.push(...arms(run), ...plan(run.plan, run.verified), ...curveCharts(curves), ...artifacts(run.artifacts));
  const scrollTop = $("overview").scrollTop;
  $("overview").replaceChildren(...sections);
  $("overview").scrollTop = scrollTop;
}

function table(columns, rows) {
  const head = columns.map(([name, kind]) => el("th", { scope: "col", class: kind }, name));
  const body = rows.map((row) => el("tr", {}, ...row.map((cell, at) => el("td", { class: columns[at][1] }, cell))));
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": columns[0][0] }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
}

function sources(catalog) {
  const rows = catalog.sources.map((source) => [
    el("a", { href: `#/images/${encodeURIComponent(source.name)}` }, source.name),
    source.complete ? formatCount(source.samples) : source.samples ? `${formatCount(source.samples)} so far` : "not counted",
    formatCount(source.shards), formatBytes(source.bytes), source.weight || "–",
    source.channel_means ? source.channel_means.map((mean) => mean.toFixed(0)).join(" ") : "–",
    el("span", { class: "mono" }, source.digest?.slice(0, 12) ?? "not indexed"),
  ]);
  return table([["Source"], ["samples", "number"], ["shards", "number"], ["size", "number"], ["weight", "number"], ["mean R G B", "number"], ["digest"]], rows);
}

function arms(run) {
  const names = Object.keys(run.arms);
  if (!names.length) return [];
  const protocols = [...new Set(names.flatMap((name) => Object.keys(run.arms[name].text ?? {})))];
  const rows = names.map((name) => { // the server formats all numbers, as for the report
    const { seeds = [], text = {} } = run.arms[name];
    return [el("span", { class: "arm" }, el("i", { class: `dot ${colourOf(name)}` }), name), `${seeds.length || "–"}`,
      ...(seeds[0]?.text ?? ["–", "–", "–"]), ...protocols.map((protocol) => text[protocol] ?? "–")];
  });
  const columns = [["Arm"], ["seeds", "number"], ["real weight", "number"], ["generated", "number"], ["passes per real image", "number"], ...protocols.map((name) => [`${name} %`, "number"])];
  return [el("h2", {}, "Arms"), table(columns, rows)];
}

function plan(content, verified) {
  if (!content) return [];
  const rows = (content.choices ?? []).map((choice) => [choice.name, formatNumber(choice.value), choice.formula, choice.basis]);
  const warnings = (content.warnings ?? []).map((text) => el("p", { class: "soft" }, `Warning: ${text}.`));
  const result = Array.isArray(verified) ? [el("p", {}, `${verified.map((line) => String(line).trim()).join("; ")}.`)] : [];
  return [el("h2", {}, "Plan"), table([["Choice"], ["value", "number"], ["formula"], ["basis"]], rows), ...result, ...warnings];
}

function curveCharts(curves) {
  const labels = Object.keys(curves);
  const byMetric = new Map();
  for (const label of labels) {
    for (const [name, points] of Object.entries(curves[label])) {
      if (!byMetric.has(name)) byMetric.set(name, []);
      byMetric.get(name).push([label, points, "other"]);
    }
  }
  const pretraining = (lines) => lines.some(([label]) => label.startsWith("pretrain"));
  const others = [];
  const figures = [];
  for (const [name, lines] of byMetric) {
    const title = TITLES[name] ?? name.replaceAll("_", " ");
    const trained = lines.filter(([label]) => label.startsWith("pretrain"));
    figures.push(pretraining(lines) ? chart(title, coloured(trained)) : null);
    others.push(...lines.filter(([label]) => !label.startsWith("pretrain")).map((line) => chart(`${line[0]}: ${title.toLowerCase()}`, [line])));
  }
  const shown = [...figures, ...others].filter(Boolean);
  if (!shown.length) return [];
  return [el("h2", {}, "Curves"), legend(armsOf(labels)), el("div", { class: "charts" }, ...shown)];
}

// "pretrain none (seed 0)" → "none": all seeds of an arm have the same colour.
const armOf = (label) => label.replace(/^pretrain /, "").replace(/ \(seed \d+\)$/, "");
const armsOf = (labels) => [...new Set(labels.filter((label) => label.startsWith("pretrain")).map(armOf))];
const coloured = (lines) => lines.map(([label, points]) => [label, points, colourOf(armOf(label))]);

function artifacts(list) {
  const rows = list.map((one) => [
    one.name, el("span", { class: `badge ${one.state}` }, one.state), one.error ?? one.made_by ?? "", el("span", { class: "mono" }, one.digest?.slice(0, 12) ?? ""),
  ]);
  return [el("h2", {}, "Artifacts"), table([["Artifact"], ["state"], ["written by"], ["digest"]], rows)];
}
