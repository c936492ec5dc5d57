// The URL fragment determines the view: #/ · #/images/SOURCE?shard=&label=&quality=&q=&where=&map=&of=&statistics= ·
// #/sample/SOURCE/SHARD/NUMBER

import { fetchJson } from "./api.js";
import { formatNumber } from "./charts.js";
import { $, copy, el, formatCount, showStatus } from "./dom.js";
import { Grid } from "./grid.js";
import { ImageMap, REAL } from "./map.js";
import { showOverview } from "./overview.js";
import { showStatistics } from "./statistics.js";
import { exportKeys, showTags } from "./tags.js";
import { sampleHref, showProblem, showSample } from "./sample.js";

const POLL_MS = 5000;
const THEMES = ["auto", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");

let catalog = { sources: [] };
let shown = ""; // the query of the images in the grid, so that returning to them restores it

const source = () => catalog.sources.find((one) => one.name === view.source);
const view = { name: "", source: "", map: "", of: "", where: [], statistics: false };
// Names of the sources of generated images that have a map.
const mapped = () => catalog.sources.filter((one) => one.map && one.name !== REAL).map((one) => one.name);
const hrefOf = (name, query) => `#/images/${encodeURIComponent(name)}${query.size ? `?${query}` : ""}`;

const grid = new Grid($("grid"), {
  onMove: (from, to, total, complete, reading) => {
    const count = total ? `${formatCount(from + 1)}–${formatCount(to)} of ${formatCount(total)}${complete ? "" : " so far"}` : complete ? "no images" : "";
    $("position").textContent = [count, reading && `${reading} …`].filter(Boolean).join(" · ");
  },
  onSource: (known) => {
    const one = source();
    if (!one || (one.samples === known.samples && one.complete === known.complete)) return;
    Object.assign(one, known);
    $("label-filter").hidden = !one.labelled && one.complete;
    showSources();
  },
  onOpen: (sample) => { location.hash = sampleHref(view.source, sample.shard, sample.number); },
  hrefOf: (sample) => sampleHref(view.source, sample.shard, sample.number),
});

const map = new ImageMap($("map"), {
  hrefOf: (name, region) => hrefOf(name, name === view.source ? selection(region) : withRegion(name, region)),
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  $("theme").textContent = `Theme: ${theme}`;
  localStorage.setItem("theme", theme);
}

function showView(name) {
  view.name = name;
  for (const id of ["overview", "images", "sample"]) $(id).hidden = id !== name;
}

// Of a tar without index, nothing is known before it has been read.
const countOf = (one) => (one.complete ? `${formatCount(one.samples)} · ` : one.samples ? `${formatCount(one.samples)} so far · ` : "");

function showSources() {
  const here = (current) => (current ? "page" : null);
  const links = catalog.sources.map((one) => el("a", {
    href: hrefOf(one.name, ""), "aria-current": here(view.name !== "overview" && !view.map && one.name === view.source),
  }, el("bdi", {}, one.name), el("small", {}, `${countOf(one)}${formatCount(one.shards)} shard${one.shards === 1 ? "" : "s"}`)));
  links.push(...mapped().map((name, at, all) => el("a", {
    href: hrefOf(name, withRegion(name, "all")), "aria-current": here(view.name !== "overview" && view.map && view.of === name),
  }, "Map", el("small", {}, `embedding of real and ${all.length > 1 ? name : "generated"}`))));
  const title = catalog.is_run ? "Run" : "Overview";
  $("sources").replaceChildren(el("a", { href: "#/", "aria-current": here(view.name === "overview") }, title,
    el("small", {}, catalog.is_run ? "plan, arms, curves" : "sources")), ...links);
  $("uri").textContent = catalog.uri;
}

async function showImages(name, query) {
  view.source = name;
  if (!source() && catalog.sources.length) throw new Error(`There is no source ${name}; choose one of the list.`);
  showView("images");
  const key = `${name}?${query}`;
  const [shard, label, quality, region] = ["shard", "label", "quality", "map"].map((one) => query.get(one) ?? "");
  view.map = region;
  showTags(catalog.uri, source());
  view.where = query.getAll("where");
  view.statistics = query.has("statistics");
  view.of = mapped().includes(name) ? name : query.get("of") ?? mapped()[0] ?? "";
  $("map").hidden = !region;
  $("images-title").textContent = name;
  document.title = `${name} · AdaInf shards`;
  if (key !== shown) {
    shown = key;
    $("shard").value = shard;
    $("shard").max = Math.max(0, (source()?.shards ?? 1) - 1);
    $("quality-filter").hidden = !source()?.quality;
    for (const option of $("quality").querySelectorAll(".of-map")) option.hidden = option.disabled = !source()?.map;
    $("quality").value = quality;
    const search = $("search").value = query.get("q") ?? "";
    const unfiltered = shard === "" && label === "" && quality === "" && region === "" && search === "" && !view.where.length;
    grid.nameOf = (number) => labelNames.get(number);
    const selected = { source: name, shard, label, quality, map: region, of: region && view.of, q: search, where: view.where };
    if (JSON.stringify(selected) !== JSON.stringify(grid.query)) grid.show(selected, unfiltered ? source()?.samples ?? 0 : 0);
    await showLabels(name, label);
    $("statistics-button").setAttribute("aria-expanded", view.statistics);
    if (key !== shown) return;
    showChips();
    showStatistics($("statistics"), { ...view, digest: source()?.digest, shard, label, hrefWith });
    if (region) map.show(name, region, view.of);
  }
  if (!$("map").contains(document.activeElement)) $("grid").focus({ preventScroll: true });
}

const labelNames = new Map();
let labelsOf = "";

// Labels are in the indexes of all shards, so they are read only when a filter by label is first used.
async function showLabels(name, selected) {
  const select = $("label");
  $("label-filter").hidden = !source()?.labelled && source()?.complete;
  if (labelsOf !== name) {
    labelsOf = "";
    labelNames.clear();
    select.replaceChildren(el("option", { value: "" }, "all"));
  }
  if (selected !== "") await readLabels(name);
  select.value = selected;
}

async function readLabels(name) {
  if (labelsOf === name) return;
  labelsOf = name;
  const select = $("label");
  const value = select.value;
  try {
    const labels = await fetchJson("labels", { source: name });
    if (view.source !== name) return;
    for (const one of labels) labelNames.set(one.label, one.name ?? `${one.label}`);
    select.replaceChildren(el("option", { value: "" }, "all"),
      ...labels.map((one) => el("option", { value: one.label }, `${one.name ?? one.label} (${formatCount(one.count)})`)));
    select.value = value;
  } catch (error) {
    labelsOf = "";
    showStatus(error.message);
  }
}

// The query of the filters and of the map.
function selection(region = view.map) {
  const query = new URLSearchParams();
  for (const id of ["shard", "label", "quality"]) if ($(id).value !== "") query.set(id, $(id).value);
  if ($("search").value) query.set("q", $("search").value);
  for (const condition of view.where) query.append("where", condition);
  if (view.statistics) query.set("statistics", "1");
  return withRegion(view.source, region, query);
}

// The URL with another label, or with a condition on a field in place of those on that field; the same one again removes it.
function hrefWith({ label, condition }) {
  const query = selection();
  if (label !== undefined) {
    if (query.get("label") === `${label}`) query.delete("label");
    else query.set("label", label);
  } else {
    const text = JSON.stringify(condition);
    const others = view.where.filter((one) => fieldOf(one) !== condition[0]);
    query.delete("where");
    for (const one of view.where.includes(text) ? others : [...others, text]) query.append("where", one);
  }
  return hrefOf(view.source, query);
}

function parsed(text) {
  try {
    return [JSON.parse(text)].flat();
  } catch {
    return [text]; // the server says what is wrong with it
  }
}
const fieldOf = (text) => parsed(text)[0];

function showChips() {
  $("chips").replaceChildren(...view.where.map((text) => {
    const [name, ...values] = parsed(text);
    const shown = values.length > 1 ? `${name}: ${values.map((one) => (typeof one === "number" ? formatNumber(one) : one)).join(" to ")}` : `${name}: ${values[0]}`;
    return el("a", { class: "chip", href: hrefWith({ condition: parsed(text) }), "aria-label": `Remove the filter ${shown}` }, el("bdi", {}, shown), " ×");
  }));
}

// Adds a region of the map. Real images are in every map, so with several maps the query names one.
function withRegion(name, region, query = new URLSearchParams()) {
  if (region) query.set("map", region);
  if (region && name === REAL && mapped().length > 1) query.set("of", view.of);
  return query;
}

function filter() { location.hash = hrefOf(view.source, selection()); }

let navigation = 0; // a response that arrives after the next navigation is ignored

async function route() {
  navigation += 1;
  const current = navigation;
  const [path, query = ""] = location.hash.slice(2).split("?");
  const [name, ...rest] = path.split("/").map(decoded);
  try {
    if (name === "images") await showImages(rest[0], new URLSearchParams(query));
    else if (name === "sample") {
      const sample = await fetchJson("sample", { source: rest[0], shard: rest[1], number: rest[2] });
      if (current !== navigation) return;
      view.source = rest[0];
      const back = shown.startsWith(`${rest[0]}?`) ? shown.slice(rest[0].length) : "";
      showSample(sample, `#/images/${encodeURIComponent(rest[0])}${back.length > 1 ? back : ""}`);
      showView("sample");
    } else {
      showView("overview");
      await showOverview(catalog);
    }
  } catch (error) {
    if (current !== navigation) return;
    if (name === "images" || name === "sample") {
      showProblem(error.message);
      showView("sample");
    } else showStatus(error.message);
  }
  showSources();
}

// A part of the URL. People type a % that is no escape.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function poll() {
  if (!document.hidden && view.name === "overview" && catalog.is_run) {
    try {
      catalog = await fetchJson("catalog");
      showSources();
      await showOverview(catalog);
    } catch (error) {
      showStatus(error.message);
    }
  }
  setTimeout(poll, POLL_MS);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const typing = event.target.matches("input, select");
  if (event.key === "Escape" && typing) $("grid").focus();
  else if (typing) return;
  else if (event.key === "?") $("help").showModal();
  else if (event.key === "/" && view.name === "images") $("shard").focus();
  else if (event.key === "t" && view.name === "images") { grid.tag(); showTags(catalog.uri, source()); }
  else if (event.key === "c" && view.name === "sample") $("copy-key").click();
  else if (event.key === "c" && view.name === "images" && grid.sample()?.key !== undefined) copy(grid.sample().key);
  else if (event.key === "ArrowLeft" && view.name === "sample") $("previous")?.click();
  else if (event.key === "ArrowRight" && view.name === "sample") $("next")?.click();
  else if (event.key === "Escape" && view.name === "sample") $("back").click();
  else return;
  event.preventDefault();
}

setTheme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");
dark.addEventListener("change", () => setTheme(localStorage.getItem("theme")));
$("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(localStorage.getItem("theme")) + 1) % THEMES.length]));
$("help-button").addEventListener("click", () => $("help").showModal());
$("copy-uri").addEventListener("click", () => copy(catalog.uri));
$("shard").addEventListener("change", filter);
$("label").addEventListener("change", filter);
$("quality").addEventListener("change", filter);
$("export").addEventListener("click", () => exportKeys(view.source, grid.query).catch((error) => showStatus(error.message)));
$("search").addEventListener("change", filter);
$("statistics-button").addEventListener("click", () => { view.statistics = !view.statistics; filter(); });
$("label").addEventListener("focus", () => readLabels(view.source));
$("size").value = localStorage.getItem("size") ?? 80;
grid.side = Number($("size").value);
$("size").addEventListener("input", () => { localStorage.setItem("size", $("size").value); grid.resize(Number($("size").value)); });
addEventListener("keydown", keys);
addEventListener("hashchange", route);

try {
  catalog = await fetchJson("catalog");
} catch (error) {
  showStatus(error.message);
}
if (location.hash.length < 3 && !catalog.is_run && catalog.sources.length) {
  history.replaceState(null, "", `#/images/${encodeURIComponent(catalog.sources[0].name)}`);
}
await route();
poll();
