// The page of one sample: its full-size image and its metadata.

import { imageUrl } from "./api.js";
import { formatNumber } from "./charts.js";
import { $, copy, el, formatCount } from "./dom.js";

const SMALL_PX = 256; // smaller images are shown without smoothing

export const sampleHref = (source, shard, number) => `#/sample/${encodeURIComponent(source)}/${shard}/${number}`;

// The real training image that is nearest to a generated image.
function nearest({ source, shard, number, distance }, kind) {
  const href = sampleHref(source, shard, number);
  return el("figure", { id: "nearest" },
    el("a", { class: kind, href }, el("img", { src: imageUrl(source, shard, number), alt: "Nearest training image" })),
    el("figcaption", {}, "Nearest training image: ", el("a", { href }, `number ${formatCount(number)} of shard ${formatCount(shard)}`),
      `, distance ${formatNumber(distance)} in the feature space of the metrics`));
}

// In place of a sample, or of images, that cannot be shown.
export function showProblem(message) {
  document.title = "AdaInf shards";
  $("sample").replaceChildren(
    el("h1", { id: "sample-title" }, "Cannot be shown"), el("p", { class: "error", dir: "auto" }, message),
    el("p", {}, el("a", { id: "back", href: "#/" }, "Overview")));
}

const shortened = (text) => (text.length > 80 ? `${text.slice(0, 80)}…` : text);

export function showSample(sample, backHref) {
  const { source, shard, number } = sample;
  const fields = [
    ["Key", el("bdi", { class: "mono" }, sample.key)],
    ["Source", sample.source],
    ["Shard", el("span", { class: "mono" }, sample.uri)],
    ["Number", `${formatCount(sample.number)} of ${formatCount(sample.of)} in shard ${formatCount(sample.shard)}`],
    ["Label", sample.label === null ? "none" : sample.class === null || sample.class === `${sample.label}` ? `${sample.label}` : `${sample.label}, ${sample.class}`],
    ["Caption", sample.text === null ? "none" : el("bdi", {}, sample.text)],
    ["Image", sample.format ? `${sample.format}, ${sample.width_px} × ${sample.height_px} px` : "unknown"],
    ["Bytes", `${formatCount(sample.size_bytes)} at offset ${formatCount(sample.offset_bytes)}`],
    ...sample.fields.map(([name, value]) => [el("bdi", { class: "mono" }, name), el("bdi", {}, value)]),
    ...(sample.quality ? [["Quality", sample.quality]] : []),
    ...(sample.realism === undefined ? [] : [["Realism", `${formatNumber(sample.realism)} (1 or more: within the manifold of real images)`]]),
    ["CRC-32", el("span", { class: "mono" }, sample.crc32)],
  ];
  const link = (target, text, id) =>
    target === null ? el("span", { class: "soft" }, text) : el("a", { id, href: sampleHref(source, ...target) }, text);
  const small = sample.width_px !== undefined && Math.max(sample.width_px, sample.height_px) < SMALL_PX;
  const image = el("div", { class: `image${small ? " small" : ""}` });
  if (sample.error === undefined) image.append(el("img", { src: imageUrl(source, shard, number), alt: `Sample ${sample.key}` }));
  else image.append(el("p", { class: "error" }, sample.error));
  const range = `bytes=${sample.offset_bytes}-${sample.offset_bytes + sample.size_bytes - 1}`;
  $("sample").replaceChildren(
    el("h1", { id: "sample-title" }, "Sample ", el("bdi", {}, shortened(sample.key))),
    el("p", { class: "row" },
      el("a", { id: "back", href: backHref }, "All images"), link(sample.previous, "← previous", "previous"), link(sample.next, "next →", "next")),
    el("div", { class: "two" }, image,
      el("div", {},
        sample.map_error ? el("p", { class: "error" }, sample.map_error) : null,
        el("table", { class: "fields" }, el("tbody", {}, ...fields.map(([name, value]) =>
          el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value))))),
        el("p", { class: "row" },
          el("button", { id: "copy-key", type: "button", click: () => copy(sample.key) }, "Copy key"),
          el("button", { type: "button", click: () => copy(sample.uri) }, "Copy shard URI"),
          el("button", { type: "button", click: () => copy(range) }, "Copy byte range"),
          el("button", { type: "button", click: () => copy(location.href) }, "Copy link")),
        sample.nearest ? nearest(sample.nearest, image.className) : null)),
  );
  document.title = `${shortened(sample.key)} · AdaInf shards`;
}
