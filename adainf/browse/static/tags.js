// Tagged images, kept in this browser, and the export of keys: of the tagged images, else of the selection.

import { fetchText } from "./api.js";
import { $, formatCount, showStatus } from "./dom.js";

const MAX_TAGS = 20000;
let place = ""; // in the storage of this browser
let tags = new Map(); // "shard/number" → key

const idOf = ({ shard, number }) => `${shard}/${number}`;
export const isTagged = (sample) => tags.has(idOf(sample));

// The tags of a source. A set that has been written again has others.
export function showTags(uri, source) {
  const wanted = `tags ${uri} ${source?.name} ${source?.digest}`;
  if (wanted !== place) {
    place = wanted;
    try {
      tags = new Map(JSON.parse(localStorage.getItem(place) ?? "[]"));
    } catch {
      tags = new Map();
    }
  }
  $("export").textContent = tags.size ? `Export ${formatCount(tags.size)} tagged` : "Export keys";
}

export function toggleTag(sample) {
  if (sample.key === undefined) return;
  if (!tags.delete(idOf(sample))) {
    if (tags.size >= MAX_TAGS) { showStatus(`At most ${formatCount(MAX_TAGS)} images can be tagged; export and remove some.`); return; }
    tags.set(idOf(sample), sample.key);
  }
  try {
    if (tags.size) localStorage.setItem(place, JSON.stringify([...tags]));
    else localStorage.removeItem(place);
  } catch {
    showStatus("This browser cannot store more tags; export them now.");
  }
}

export async function exportKeys(source, query) {
  const lines = [...tags].map(([id, key]) => `${JSON.stringify({ source, shard: Number(id.split("/")[0]), key })}\n`);
  const text = lines.length ? lines.join("") : await fetchText("keys", query);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/x-ndjson" }));
  link.download = `${source.replaceAll("/", "-")}-keys.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  showStatus(`Exported ${formatCount(text.split("\n").length - 1)} keys`);
}
