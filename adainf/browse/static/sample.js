// One sample: its picture in full and all that is known of it.

import { imageUrl } from "./api.js";
import { short } from "./charts.js";
import { $, copy, count, el } from "./dom.js";

const SMALL_PX = 256; // below this, pixels are shown as pixels

export const sampleHref = (source, shard, number) => `#/sample/${encodeURIComponent(source)}/${shard}/${number}`;

// A generated image beside the real one that is nearest to it.
function nearest({ source, shard, number, distance }, kind) {
  const href = sampleHref(source, shard, number);
  return el("figure", { id: "nearest" },
    el("a", { class: kind, href }, el("img", { src: imageUrl(source, shard, number), alt: "Nearest training image" })),
    el("figcaption", {}, "The training image that is nearest to it: ", el("a", { href }, `number ${count(number)} of shard ${count(shard)}`),
      `, at distance ${short(distance)} in the space of the features that judge`));
}

export function drawSample(said, backHref) {
  const { source, shard, number } = said;
  const facts = [
    ["Key", el("span", { class: "mono" }, said.key)],
    ["Source", said.source],
    ["Shard", el("span", { class: "mono" }, said.uri)],
    ["Number", `${count(said.number)} of ${count(said.of)} in shard ${count(said.shard)}`],
    ["Label", said.label === null ? "none" : said.class === null || said.class === `${said.label}` ? `${said.label}` : `${said.label}, ${said.class}`],
    ["Caption", said.text ?? "none"],
    ["Image", said.format ? `${said.format}, ${said.width_px} × ${said.height_px} px` : "unknown"],
    ["Bytes", `${count(said.size_bytes)} from ${count(said.offset_bytes)} on`],
    ...(said.quality ? [["Quality", said.quality]] : []),
    ...(said.realism === undefined ? [] : [["Realism", `${short(said.realism)} (1 or more: among real images)`]]),
    ["CRC-32", el("span", { class: "mono" }, said.crc32)],
  ];
  const step = (place, text, id) =>
    place === null ? el("span", { class: "soft" }, text) : el("a", { id, href: sampleHref(source, ...place) }, text);
  const small = said.width_px !== undefined && Math.max(said.width_px, said.height_px) < SMALL_PX;
  const picture = el("div", { class: `picture${small ? " small" : ""}` });
  if (said.problem === undefined) picture.append(el("img", { src: imageUrl(source, shard, number), alt: `Sample ${said.key}` }));
  else picture.append(el("p", { class: "problem" }, said.problem));
  const range = `bytes=${said.offset_bytes}-${said.offset_bytes + said.size_bytes - 1}`;
  $("sample").replaceChildren(
    el("h1", { id: "sample-title" }, `Sample ${said.key}`),
    el("p", { class: "row" },
      el("a", { id: "back", href: backHref }, "All images"), step(said.previous, "← before", "previous"), step(said.next, "after →", "next")),
    el("div", { class: "two" }, picture,
      el("div", {},
        said.map_problem ? el("p", { class: "problem" }, said.map_problem) : null,
        el("table", { class: "facts" }, el("tbody", {}, ...facts.map(([name, value]) =>
          el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value))))),
        el("p", { class: "row" },
          el("button", { id: "copy-key", type: "button", click: () => copy(said.key) }, "Copy key"),
          el("button", { type: "button", click: () => copy(said.uri) }, "Copy shard's address"),
          el("button", { type: "button", click: () => copy(range) }, "Copy byte range"),
          el("button", { type: "button", click: () => copy(location.href) }, "Copy link")),
        said.nearest ? nearest(said.nearest, picture.className) : null)),
  );
  document.title = `${said.key} · AdaInf shards`;
}
