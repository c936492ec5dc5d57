// Which view is in sight follows from the address: #/ · #/images/SOURCE?shard=&label=&quality=&map=&of= · #/sample/SOURCE/SHARD/NUMBER

import { ask } from "./api.js";
import { $, copy, count, el, say } from "./dom.js";
import { Grid } from "./grid.js";
import { ImageMap, REAL } from "./map.js";
import { showOverview } from "./overview.js";
import { drawSample, sampleHref } from "./sample.js";

const POLL_MS = 5000;
const THEMES = ["auto", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");

let catalog = { sources: [] };
let shown = ""; // the address of the images in the grid, so that coming back finds them as they were

const source = () => catalog.sources.find((one) => one.name === view.source);
const view = { name: "", source: "", map: "", of: "" };
// The sources of generated images that have a map.
const mapped = () => catalog.sources.filter((one) => one.map && one.name !== REAL).map((one) => one.name);
const hrefOf = (name, query) => `#/images/${encodeURIComponent(name)}${query.size ? `?${query}` : ""}`;

const grid = new Grid($("grid"), {
  onMove: (from, to, total, complete) => {
    $("position").textContent = total ? `${count(from + 1)}–${count(to)} of ${count(total)}${complete ? "" : " so far"}` : "no images";
  },
  onOpen: (sample) => { location.hash = sampleHref(view.source, sample.shard, sample.number); },
  hrefOf: (sample) => sampleHref(view.source, sample.shard, sample.number),
});

const map = new ImageMap($("map"), {
  hrefOf: (name, part) => hrefOf(name, name === view.source ? chosen(part) : withPart(name, part)),
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  $("theme").textContent = `Theme: ${theme}`;
  localStorage.setItem("theme", theme);
}

function reveal(name) {
  view.name = name;
  for (const id of ["overview", "images", "sample"]) $(id).hidden = id !== name;
}

function drawSources() {
  const here = (current) => (current ? "page" : null);
  const links = catalog.sources.map((one) => el("a", {
    href: hrefOf(one.name, ""), "aria-current": here(view.name !== "overview" && !view.map && one.name === view.source),
  }, one.name, el("small", {}, `${count(one.samples)}${one.complete ? "" : " so far"} · ${count(one.shards)} shard${one.shards === 1 ? "" : "s"}`)));
  links.push(...mapped().map((name, at, all) => el("a", {
    href: hrefOf(name, withPart(name, "all")), "aria-current": here(view.name !== "overview" && view.map && view.of === name),
  }, "Map", el("small", {}, `real and ${all.length > 1 ? name : "generated"}, by features`))));
  const title = catalog.is_run ? "Run" : "Overview";
  $("sources").replaceChildren(el("a", { href: "#/", "aria-current": here(view.name === "overview") }, title,
    el("small", {}, catalog.is_run ? "plan, arms, curves" : "what lies here")), ...links);
  $("uri").textContent = catalog.uri;
}

async function showImages(name, query) {
  view.source = name;
  reveal("images");
  const address = `${name}?${query}`;
  const [shard, label, quality, part] = ["shard", "label", "quality", "map"].map((one) => query.get(one) ?? "");
  view.map = part;
  view.of = mapped().includes(name) ? name : query.get("of") ?? mapped()[0] ?? "";
  $("map").hidden = !part;
  $("images-title").textContent = name;
  document.title = `${name} · AdaInf shards`;
  if (address !== shown) {
    shown = address;
    $("shard").value = shard;
    $("shard").max = Math.max(0, (source()?.shards ?? 1) - 1);
    $("quality-filter").hidden = !source()?.quality;
    for (const option of $("quality").querySelectorAll(".of-map")) option.hidden = option.disabled = !source()?.map;
    $("quality").value = quality;
    const whole = shard === "" && label === "" && quality === "" && part === "";
    grid.nameOf = (number) => labelNames.get(number);
    grid.show({ source: name, shard, label, quality, map: part, of: part && view.of }, whole ? source()?.samples ?? 0 : 0);
    await fillLabels(name, label);
    if (part && address === shown) map.show(name, part, view.of);
  }
  if (!$("map").contains(document.activeElement)) $("grid").focus({ preventScroll: true });
}

const labelNames = new Map();
let labelsOf = "";

// Labels are in the indexes of all shards: they are read when somebody first wants to choose by them.
async function fillLabels(name, chosen) {
  const select = $("label");
  $("label-filter").hidden = !source()?.labelled && source()?.complete;
  if (labelsOf !== name) {
    labelsOf = "";
    labelNames.clear();
    select.replaceChildren(el("option", { value: "" }, "all"));
  }
  if (chosen !== "") await readLabels(name);
  select.value = chosen;
}

async function readLabels(name) {
  if (labelsOf === name) return;
  labelsOf = name;
  const select = $("label");
  const value = select.value;
  try {
    const labels = await ask("labels", { source: name });
    if (view.source !== name) return;
    for (const one of labels) labelNames.set(one.label, one.name ?? `${one.label}`);
    select.replaceChildren(el("option", { value: "" }, "all"),
      ...labels.map((one) => el("option", { value: one.label }, `${one.name ?? one.label} (${count(one.count)})`)));
    select.value = value;
  } catch (error) {
    labelsOf = "";
    say(error.message);
  }
}

// What the filters and the map have chosen.
function chosen(part = view.map) {
  const query = new URLSearchParams();
  for (const id of ["shard", "label", "quality"]) if ($(id).value !== "") query.set(id, $(id).value);
  return withPart(view.source, part, query);
}

// A part of the map as well; real images are in several maps where there are several.
function withPart(name, part, query = new URLSearchParams()) {
  if (part) query.set("map", part);
  if (part && name === REAL && mapped().length > 1) query.set("of", view.of);
  return query;
}

function filter() { location.hash = hrefOf(view.source, chosen()); }

let turn = 0; // an answer that comes after the viewer has gone on is not shown

async function route() {
  turn += 1;
  const mine = turn;
  const [path, query = ""] = location.hash.slice(2).split("?");
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  try {
    if (name === "images") await showImages(rest[0], new URLSearchParams(query));
    else if (name === "sample") {
      const said = await ask("sample", { source: rest[0], shard: rest[1], number: rest[2] });
      if (mine !== turn) return;
      view.source = rest[0];
      const back = shown.startsWith(`${rest[0]}?`) ? shown.slice(rest[0].length) : "";
      drawSample(said, `#/images/${encodeURIComponent(rest[0])}${back.length > 1 ? back : ""}`);
      reveal("sample");
    } else {
      reveal("overview");
      await showOverview(catalog);
    }
  } catch (error) {
    say(error.message);
  }
  drawSources();
}

async function poll() {
  if (!document.hidden && view.name === "overview" && catalog.is_run) {
    try {
      catalog = await ask("catalog");
      drawSources();
      await showOverview(catalog);
    } catch (error) {
      say(error.message);
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
  else if (event.key === "c" && view.name === "sample") $("copy-key").click();
  else if (event.key === "c" && view.name === "images" && grid.sample()) copy(grid.sample().key);
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
$("label").addEventListener("focus", () => readLabels(view.source));
$("size").value = localStorage.getItem("size") ?? 80;
grid.side = Number($("size").value);
$("size").addEventListener("input", () => { localStorage.setItem("size", $("size").value); grid.resize(Number($("size").value)); });
addEventListener("keydown", keys);
addEventListener("hashchange", route);

try {
  catalog = await ask("catalog");
} catch (error) {
  say(error.message);
}
if (location.hash.length < 3 && !catalog.is_run && catalog.sources.length) {
  history.replaceState(null, "", `#/images/${encodeURIComponent(catalog.sources[0].name)}`);
}
await route();
poll();
